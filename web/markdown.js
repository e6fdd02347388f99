/* markdown - an answer's text as elements.
 *
 * An answer is text from a model that may have read anything, so it is treated as hostile: HTML in it is shown as text, what
 * marked makes of the rest passes DOMPurify with a short list of elements and attributes, and pictures become links, because
 * loading one would tell another host about the conversation. The page's policy (no inline script, no other host) stands
 * behind both.
 *
 * While an answer grows only its last blocks change: the text is cut into blocks each time, which is cheap, and only blocks
 * whose text differs are made anew. What the reader has selected further up stays selected.
 *
 * Without the libraries, text is shown as it is. */
import { marked, DOMPurify } from './libs.js';

export const hasMarkdown = Boolean(marked && DOMPurify);

const CLEAN = {
  ALLOWED_TAGS: ['p', 'br', 'hr', 'h3', 'h4', 'h5', 'h6', 'ul', 'ol', 'li', 'blockquote', 'pre', 'code', 'em', 'strong', 'del', 'a',
    'table', 'thead', 'tbody', 'tr', 'th', 'td', 'sub', 'sup'],
  ALLOWED_ATTR: ['href', 'title', 'class', 'align', 'start'],
  ADD_URI_SAFE_ATTR: ['align', 'start'], /* hold no address */
  ALLOWED_URI_REGEXP: /^(?:https?|mailto):/i,
  ALLOW_DATA_ATTR: false,
  ALLOW_ARIA_ATTR: false,
  RETURN_DOM_FRAGMENT: true,
};
const HARMLESS = /^<\/?(?:br|sub|sup)\s*\/?>$/i;

function escaped(text) {
  return text.replace(/[&<>"']/g, (c) => `&#${c.charCodeAt(0)};`);
}

if (hasMarkdown) {
  marked.use({
    gfm: true,
    breaks: true,
    renderer: {
      html: ({ text }) => (HARMLESS.test(text.trim()) ? text : escaped(text)),
      image: ({ href, text }) => `<a href="${escaped(href)}">${escaped(text || href)}</a>`,
      checkbox: ({ checked }) => (checked ? '\u2611 ' : '\u2610 '),
      heading({ tokens, depth }) { /* the page itself has the first two levels */
        const level = Math.min(depth + 2, 6);
        return `<h${level}>${this.parser.parseInline(tokens)}</h${level}>`;
      },
    },
  });
}

/* A button that copies; `text` is called when it is pressed. */
export function copyButton(name, text) {
  const button = document.createElement('button');
  button.type = 'button';
  button.className = 'small copy';
  button.textContent = 'Copy';
  button.setAttribute('aria-label', name);
  button.addEventListener('click', async () => {
    const done = await copy(text());
    button.textContent = done ? 'Copied' : 'Not copied';
    setTimeout(() => { button.textContent = 'Copy'; }, 1500);
  });
  return button;
}

/* The clipboard's own interface exists only on safe origins (https, localhost); the old way works on the others. */
async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const area = document.createElement('textarea');
    const focused = document.activeElement;
    area.value = text;
    area.className = 'unseen';
    document.body.append(area);
    area.select();
    const done = document.execCommand('copy');
    area.remove();
    focused?.focus();
    return done;
  }
}

function dressCode(pre) {
  const code = pre.querySelector('code');
  const language = /language-([\w+#-]+)/.exec(code?.className ?? '')?.[1] ?? '';
  const box = document.createElement('div');
  const head = document.createElement('div');
  const name = document.createElement('span');
  box.className = 'code';
  head.className = 'code-head';
  name.className = 'quiet';
  name.textContent = language || 'code';
  pre.replaceWith(box);
  pre.tabIndex = 0; /* so that the arrow keys scroll it */
  pre.setAttribute('role', 'region');
  pre.setAttribute('aria-label', language ? `Code, ${language}` : 'Code');
  head.append(name, copyButton('Copy code', () => pre.textContent.replace(/\n$/, '')));
  box.append(head, pre);
}

function dress(fragment) {
  fragment.querySelectorAll('pre').forEach(dressCode);
  fragment.querySelectorAll('a').forEach((a) => {
    a.target = '_blank';
    a.rel = 'noopener noreferrer';
  });
  fragment.querySelectorAll('table').forEach((table) => {
    const box = document.createElement('div');
    box.className = 'scroll';
    box.tabIndex = 0;
    box.setAttribute('role', 'region');
    box.setAttribute('aria-label', 'Table');
    table.replaceWith(box);
    box.append(table);
  });
}

function block(token) {
  const fragment = DOMPurify.sanitize(marked.parser([token]), CLEAN);
  dress(fragment);
  return [...fragment.childNodes];
}

/* Shows growing texts in `target`; call the returned function with the whole text each time. */
export function renderer(target) {
  if (!hasMarkdown) {
    target.classList.add('plain');
    return (text) => { target.textContent = text; };
  }
  let shown = []; /* {raw, nodes} of each block, in order */
  return (text) => {
    const tokens = marked.lexer(text);
    let same = 0;
    while (same < shown.length && same < tokens.length && shown[same].raw === tokens[same].raw) {
      same++;
    }
    shown.slice(same).forEach((b) => b.nodes.forEach((n) => n.remove()));
    shown = shown.slice(0, same);
    for (const token of tokens.slice(same)) {
      const nodes = block(token);
      target.append(...nodes);
      shown.push({ raw: token.raw, nodes });
    }
  };
}

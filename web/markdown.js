/* markdown - an answer's text as elements.
 *
 * An answer is text from a model that may have read anything, so it is treated as hostile: no HTML is ever parsed. marked cuts
 * the text into tokens, and each token becomes an element made here, of the few kinds below, with text in it. HTML in an answer
 * is therefore text, but for line breaks, sub and sup; an address is a link only if its scheme is harmless, and a picture is a
 * link, because loading one would tell another host about the conversation. The page's policy (no inline script, no other
 * host, no text made HTML) stands behind it.
 *
 * While an answer grows only its last blocks change: the text is cut into blocks each time, which is cheap, and only blocks
 * whose text differs are made anew. What the reader has selected further up stays selected.
 *
 * Without the library, text is shown as it is. */
import { marked } from './libs.js';

export const hasMarkdown = Boolean(marked);

const OPTIONS = { ...marked?.defaults, gfm: true, breaks: true, mangle: false };
const ENTITIES = { amp: '&', lt: '<', gt: '>', quot: '"', nbsp: '\u00a0' };

/* Versions of marked differ in what they have escaped in their texts already. */
function plain(text) {
  return text.replace(/&(?:#(\d{1,7})|#x([0-9a-f]{1,6})|(\w+));/gi, (all, decimal, hex, name) => {
    const code = decimal ? Number(decimal) : parseInt(hex, 16);
    return name ? ENTITIES[name] ?? all : code > 0 && code < 0x110000 ? String.fromCodePoint(code) : all;
  });
}

function element(name, props, ...children) {
  const e = Object.assign(document.createElement(name), props);
  e.append(...children);
  return e;
}

function link(token, ...children) {
  const href = plain(token.href);
  return /^(?:https?|mailto):/i.test(href) ? element('a', { href, title: token.title ?? '', target: '_blank', rel: 'noopener noreferrer' }, ...children)
    : element('span', {}, ...children);
}

/* Elements of inline tokens; sub and sup open and close by tokens of their own. */
function inline(tokens) {
  const top = document.createDocumentFragment();
  const open = [top];
  for (const token of tokens ?? []) {
    const tag = token.type === 'html' && /^<(\/?)(br|sub|sup)\s*\/?>$/i.exec(token.raw.trim());
    if (tag && !tag[1]) {
      const e = element(tag[2].toLowerCase(), {});
      open.at(-1).append(e);
      open.push(...(e.tagName === 'BR' ? [] : [e]));
    } else if (tag && open.length > 1) {
      open.pop();
    } else {
      open.at(-1).append(inlineOne(token));
    }
  }
  return top;
}

function inlineOne(token) {
  switch (token.type) {
    case 'strong': case 'em': case 'del':
      return element(token.type, {}, inline(token.tokens));
    case 'codespan':
      return element('code', {}, plain(token.text));
    case 'br':
      return element('br', {});
    case 'link':
      return link(token, token.tokens?.length ? inline(token.tokens) : plain(token.text));
    case 'image':
      return link(token, plain(token.text) || plain(token.href));
    case 'escape':
      return token.raw.slice(1);
    default:
      return token.tokens?.length ? inline(token.tokens) : plain(token.raw);
  }
}

/* What the arrow keys can scroll. */
function region(e, name) {
  e.tabIndex = 0;
  e.setAttribute('role', 'region');
  e.setAttribute('aria-label', name);
  return e;
}

function code(token) {
  const language = /^[\w+#-]+/.exec(token.lang ?? '')?.[0] ?? '';
  const pre = region(element('pre', {}, element('code', {}, token.text)), language ? `Code, ${language}` : 'Code');
  const name = element('span', { className: 'quiet' }, language || 'code');
  return element('div', { className: 'code' }, element('div', { className: 'code-head' }, name, copyButton('Copy code', () => token.text)), pre);
}

function list(token) {
  const items = token.items.map((item) => {
    const e = element('li', {}, ...(item.task ? [item.checked ? '\u2611 ' : '\u2610 '] : []));
    for (const t of item.tokens) {
      e.append(t.type === 'text' ? inline(t.tokens ?? [t]) : block(t));
    }
    return e;
  });
  return token.ordered ? element('ol', { start: Number(token.start) || 1 }, ...items) : element('ul', {}, ...items);
}

function table(token) {
  const cells = (row, name) => element('tr', {}, ...row.map((cell, i) => element(name, { align: token.align[i] ?? '' }, inline(cell.tokens))));
  const e = element('table', {}, element('thead', {}, cells(token.header, 'th')), element('tbody', {}, ...token.rows.map((r) => cells(r, 'td'))));
  return region(element('div', { className: 'scroll' }, e), 'Table');
}

/* The element of a block. */
function block(token) {
  switch (token.type) {
    case 'heading': /* the page itself has the first two levels */
      return element(`h${Math.min(token.depth + 2, 6)}`, {}, inline(token.tokens));
    case 'paragraph': case 'text':
      return element('p', {}, inline(token.tokens ?? [token]));
    case 'code':
      return code(token);
    case 'blockquote':
      return element('blockquote', {}, ...token.tokens.map(block));
    case 'list':
      return list(token);
    case 'table':
      return table(token);
    case 'hr':
      return element('hr', {});
    case 'space': case 'def':
      return '';
    default: /* HTML, and what a later version may bring */
      return element('p', {}, token.raw.trim());
  }
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

/* Shows growing texts in `target`; call the returned function with the whole text each time. */
export function renderer(target) {
  if (!hasMarkdown) {
    target.classList.add('plain');
    return (text) => { target.textContent = text; };
  }
  let shown = []; /* {raw, node} of each block, in order */
  const draw = (text) => {
    const tokens = marked.lexer(text, OPTIONS);
    let same = 0;
    while (same < shown.length && same < tokens.length && shown[same].raw === tokens[same].raw) {
      same++;
    }
    shown.slice(same).forEach((b) => b.node.remove?.());
    shown = shown.slice(0, same);
    for (const token of tokens.slice(same)) {
      const node = block(token);
      target.append(...(node ? [node] : []));
      shown.push({ raw: token.raw, node });
    }
  };
  return (text) => {
    try {
      draw(text);
    } catch { /* nested deeper than the browser's stack */
      shown = [];
      target.textContent = text;
    }
  };
}

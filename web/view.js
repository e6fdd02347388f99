/* view - messages as elements.
 *
 * Each message is an <article> with a heading, its text, a line that says what went wrong if anything did, and its buttons.
 * A growing answer is drawn at most once per frame of the screen, and less often when drawing takes long. */
import { renderer, copyButton } from './markdown.js';

const NOTES = {
  stopped: 'Stopped here.',
  lost: 'The connection was lost; this is what had arrived.',
  length: 'The answer ends here because it reached the limit of tokens.',
};

export function make(tag, props = {}, ...children) {
  const e = Object.assign(document.createElement(tag), props);
  e.append(...children);
  return e;
}

export function button(text, call, props = {}) {
  const e = make('button', { type: 'button', textContent: text, ...props });
  e.addEventListener('click', call);
  return e;
}

/* Some models write what they think before the answer, between <think> and </think>. */
function parts(message) {
  const m = /^\s*<think>([\s\S]*?)(?:<\/think>|$)/.exec(message.content);
  const text = m ? message.content.slice(m[0].length) : message.content;
  return { thought: (message.thought ?? '') + (m ? m[1] : ''), text: text.trimStart() };
}

/* What the reader copies: the answer without the thoughts. */
export function textOf(message) {
  return parts(message).text;
}

export function statsText(stats) {
  if (!stats?.tokens) {
    return '';
  }
  const each = stats.ms > 0 ? `, ${(stats.tokens / stats.ms * 1000).toFixed(1)} tokens/s` : '';
  return `${stats.tokens} tokens${each}`;
}

export function userView(message) {
  const tools = make('div', { className: 'tools' });
  const element = make('article', { className: 'user' }, make('h2', { textContent: 'You' }),
    make('div', { className: 'body', textContent: message.content }), tools);
  return { element, tools, message };
}

export function answerView(message) {
  const body = make('div', { className: 'body' });
  const thought = make('details', { className: 'thought', hidden: true });
  const thoughtText = make('div');
  const note = make('p', { className: 'note', hidden: true });
  const tools = make('div', { className: 'tools' });
  thought.append(make('summary', { textContent: 'Thoughts' }), thoughtText);
  const element = make('article', { className: 'assistant' }, make('h2', { textContent: 'Answer' }), thought, body, note, tools);
  const draw = renderer(body);
  let restUntil = 0;
  let frame = 0;

  function drawNow() {
    const begin = performance.now();
    const p = parts(message);
    thought.hidden = p.thought.trim() === '';
    thoughtText.textContent = p.thought.trim();
    draw(p.text);
    element.classList.toggle('waiting', message.state === 'running' && p.text === '');
    const end = performance.now();
    restUntil = end + 3 * (end - begin); /* drawing takes at most a quarter of the time */
  }

  return {
    element, tools, message,
    /* The message has grown; `after` is called when it is drawn. */
    grow(after) {
      frame ||= requestAnimationFrame(function step(now) {
        if (now < restUntil) {
          frame = requestAnimationFrame(step);
          return;
        }
        frame = 0;
        drawNow();
        after();
      });
    },
    /* The message is as it will stay. */
    finish() {
      cancelAnimationFrame(frame);
      frame = 0;
      drawNow();
      element.classList.remove('waiting');
      note.textContent = message.error ?? NOTES[message.state] ?? '';
      note.hidden = note.textContent === '';
      tools.replaceChildren(copyButton('Copy answer', () => textOf(message)), make('span', { className: 'quiet stats', textContent: statsText(message.stats) }));
    },
    spoken: () => body.textContent,
  };
}

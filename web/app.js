/* app - the page: one conversation, the list of past ones, and what a person can do with them.
 *
 * State is few things: the chat that is shown, the answer that is being written (at most one, perhaps in another chat than
 * the one shown), whether the last message is being edited, and what is known of the model. Chats are written to the
 * browser's storage when something is complete, and when the page goes away.
 *
 * For screen readers the growing answer is silent; when it is complete it is spoken once through the status region. */
import * as api from './api.js';
import * as chats from './chats.js';
import { hasMarkdown } from './markdown.js';
import { answerView, button, make, statsText, textOf, userView } from './view.js';

const $ = (id) => document.getElementById(id);
const NEAR_END_PX = 80;
const SPOKEN_MAX = 3000;
const THEMES = ['auto', 'light', 'dark'];
const narrow = matchMedia('(max-width: 48rem)');

let chat = chats.fresh();
let views = [];
let running = null; /* {chat, message, view, control, isDropped, begin, first, n} */
let editing = -1; /* index of the message that the next one replaces */
let served = null; /* the model, as the server describes it */
let modelTimer = 0;
let follows = true; /* the end of the conversation stays in view */

/* --- small things --------------------------------------------------------------------------- */

const whole = (n) => n.toLocaleString('en');

function say(text) {
  $('spoken').textContent = text.length > SPOKEN_MAX ? `${text.slice(0, SPOKEN_MAX)}\u2026` : text;
}

function alertUser(text, ...actions) {
  const close = button('Close', () => { clearAlert(); $('input').focus(); });
  $('alert').replaceChildren(make('div', {}, make('p', { textContent: text }), ...actions, close));
}

function clearAlert() {
  $('alert').replaceChildren();
}

/* Shows a dialog; the value of the button that closed it, '' for Esc. */
function askUser(dialog, focused) {
  return new Promise((done) => {
    dialog.returnValue = '';
    dialog.addEventListener('close', () => done(dialog.returnValue), { once: true });
    dialog.showModal();
    focused?.focus();
  });
}

async function confirmDelete(text) {
  $('confirm-text').textContent = text;
  return await askUser($('confirm')) === 'yes';
}

function saveChat(which) {
  if (!chats.save(which)) {
    alertUser('The browser has no room (or no permission) to keep this chat: it will be gone with this page. Export or delete chats to make room.',
      button('Export all', exportAll));
  }
  drawList();
}

/* --- the model ------------------------------------------------------------------------------ */

async function askKey(isRefused) {
  if ($('key').open) {
    return false;
  }
  $('key-title').textContent = isRefused ? 'The key was not accepted' : 'This server asks for a key';
  $('key-text').value = '';
  const isGiven = await askUser($('key'), $('key-text')) === 'save';
  if (isGiven) {
    api.setKey($('key-text').value.trim());
  }
  return isGiven;
}

function size(n) {
  const unit = [[1e9, 'B'], [1e6, 'M'], [1e3, 'k']].find(([u]) => n >= u);
  return unit ? `${(n / unit[0]).toPrecision(3)}${unit[1]}` : String(n);
}

function contextSize() {
  const meta = served?.meta ?? {};
  return meta.n_ctx ?? meta.n_ctx_train ?? 0;
}

function drawModel(text) {
  const meta = served?.meta ?? {};
  const about = [served?.id, meta.n_params && `${size(meta.n_params)} parameters`, meta.type, contextSize() && `${whole(contextSize())} tokens of context`];
  $('model').textContent = text ?? about.filter(Boolean).join(' \u00b7 ');
  $('model').title = $('model').textContent;
}

function findModelIn(ms) {
  clearTimeout(modelTimer);
  modelTimer = setTimeout(findModel, ms);
}

async function findModel(isRefused = false) {
  try {
    served = await api.model();
    drawModel(served ? undefined : 'The model is being loaded\u2026');
    drawSpeed();
    if (!served) {
      findModelIn(1500);
    }
  } catch (e) {
    drawModel(e.message);
    if (e.status !== 401) {
      findModelIn(5000);
    } else if (await askKey(isRefused)) {
      findModel(true);
    }
  }
}

/* --- the conversation ----------------------------------------------------------------------- */

function drawSpeed() {
  const last = chat.messages.findLast((m) => m.stats);
  const s = last?.stats;
  const parts = [];
  if (running?.chat === chat && running.n > 0) {
    const s = (performance.now() - running.first) / 1000;
    parts.push(s > 0.2 ? `about ${(running.n / s).toFixed(1)} tokens/s` : 'answering');
  } else if (running) {
    parts.push(running.chat === chat ? 'reading the prompt' : 'answering in another chat');
  } else if (s) {
    parts.push(statsText(s));
    if (s.promptMs > 0 && s.promptRead > 0) {
      parts.push(`prompt ${whole(s.promptRead)} tokens, ${(s.promptRead / s.promptMs * 1000).toFixed(0)} tokens/s`);
    }
  }
  if (s?.used) {
    parts.push(`${whole(s.used)}${contextSize() ? ` of ${whole(contextSize())}` : ''} tokens of context used`);
  }
  $('speed').textContent = parts.filter(Boolean).join(' \u00b7 ');
}

function keepEnd() {
  if (follows) {
    $('log').scrollTop = $('log').scrollHeight;
  }
}

/* Only the last exchange can be changed: answered again, or asked otherwise. */
function drawTools() {
  const lastUser = chat.messages.findLastIndex((m) => m.role === 'user');
  views.forEach((v, i) => {
    const stats = v.tools.querySelector('.stats');
    v.tools.querySelectorAll('.redo').forEach((b) => b.remove());
    if (running || i < lastUser) {
      return;
    }
    if (i === lastUser) {
      v.tools.append(button('Edit', () => edit(i), { className: 'small redo', ariaLabel: 'Edit message' }));
    }
    if (i === views.length - 1) {
      v.tools.insertBefore(button('Retry', retry, { className: 'small redo', ariaLabel: 'Retry answer' }), stats);
    }
  });
}

function drawState() {
  const isRunning = running !== null;
  const hadFocus = document.activeElement === $('stop') || document.activeElement === $('send');
  $('send').hidden = isRunning;
  $('stop').hidden = !isRunning;
  $('empty').hidden = chat.messages.length > 0;
  if (hadFocus) {
    $('input').focus();
  }
  drawTools();
  drawSpeed();
}

function viewOf(message) {
  if (running?.message === message) {
    return running.view;
  }
  const view = message.role === 'user' ? userView(message) : answerView(message);
  view.finish?.();
  return view;
}

function drawChat() {
  views = chat.messages.map(viewOf);
  $('messages').replaceChildren(...views.map((v) => v.element));
  document.title = chat.title ? `${chat.title} - hearth` : 'hearth';
  chats.setCurrent(chat.id);
  follows = true;
  drawState();
  keepEnd();
}

function drawList() {
  const all = chats.list();
  $('chat-list').replaceChildren(...all.map((c) => {
    const open = button(c.title, () => show(c.id), { className: 'open', title: c.title });
    if (c.id === chat.id) {
      open.setAttribute('aria-current', 'true');
    }
    return make('li', {}, open, button('\u00d7', () => removeOne(c), { className: 'delete', ariaLabel: `Delete ${c.title}`, title: 'Delete' }));
  }));
  $('chat-none').hidden = all.length > 0;
  $('chat-tools').hidden = all.length === 0;
}

/* Shows another chat, a new one for id null. */
function show(id) {
  cancelEdit();
  clearAlert();
  chat = running?.chat.id === id ? running.chat : (id && chats.load(id)) || chats.fresh();
  drawChat();
  drawList();
  if (narrow.matches) {
    setSidebar(false);
  }
  $('input').focus();
}

async function removeOne(c) {
  if (!await confirmDelete(`Delete the chat \u201c${c.title}\u201d? It cannot be brought back.`)) {
    return;
  }
  drop(c.id);
  chats.remove(c.id);
  if (c.id === chat.id) {
    show(null);
  }
  drawList();
  ($('chat-list').querySelector('.open') ?? $('new')).focus();
}

async function removeAll() {
  if (await confirmDelete('Delete all chats? They cannot be brought back.')) {
    drop(running?.chat.id);
    chats.removeAll();
    show(null);
  }
}

/* The running answer of a chat that goes away is stopped and not written. */
function drop(id) {
  if (running && running.chat.id === id) {
    running.isDropped = true;
    running.control.abort();
  }
}

function exportAll() {
  const url = URL.createObjectURL(new Blob([chats.exported()], { type: 'application/json' }));
  make('a', { href: url, download: 'hearth-chats.json' }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10000);
}

/* --- asking --------------------------------------------------------------------------------- */

/* The messages as the server gets them. Turns that were left without an answer are joined: most models' templates want
 * question and answer in turn. */
function prompt(which) {
  const { system } = chats.settings();
  const out = system.trim() ? [{ role: 'system', content: system }] : [];
  for (const { role, content } of which.messages) {
    if (content === '') {
      continue;
    }
    if (out.at(-1)?.role === role) {
      out.at(-1).content += `\n\n${content}`;
    } else {
      out.push({ role, content });
    }
  }
  return out;
}

function request(which) {
  const { temperature, maxTokens } = chats.settings();
  return {
    messages: prompt(which),
    ...(temperature === null ? {} : { temperature }),
    ...(maxTokens === null ? {} : { max_completion_tokens: maxTokens }),
  };
}

function statsOf({ usage, timings }) {
  return {
    tokens: usage.completion_tokens,
    used: usage.total_tokens ?? usage.prompt_tokens + usage.completion_tokens,
    ms: timings?.predicted_ms ?? 0,
    promptMs: timings?.prompt_ms ?? 0,
    promptRead: timings?.prompt_n ?? usage.prompt_tokens,
  };
}

/* Takes a chunk in; whether it brought text. */
function take(run, chunk) {
  const choice = chunk.choices?.[0];
  const { content = '', reasoning_content: thought = '' } = choice?.delta ?? {};
  if (chunk.usage) {
    run.message.stats = statsOf(chunk);
  }
  if (choice?.finish_reason === 'length') {
    run.end = 'length';
  }
  run.message.content += content ?? '';
  if (thought) {
    run.message.thought = (run.message.thought ?? '') + thought;
  }
  return Boolean(content || thought);
}

async function receive(run) {
  for await (const chunk of api.chat(request(run.chat), run.control.signal)) {
    if (take(run, chunk)) {
      run.first ||= performance.now();
      run.n++;
      if (run.chat === chat) {
        run.view.grow(() => { keepEnd(); drawSpeed(); });
      }
    }
  }
}

/* Writes the next answer of the shown chat. */
async function answer() {
  const message = { role: 'assistant', content: '', state: 'running' };
  const run = { chat, message, view: answerView(message), control: new AbortController(), isDropped: false, first: 0, n: 0, end: undefined };
  let error = null;
  running = run;
  clearAlert();
  run.view.element.classList.add('waiting');
  views.push(run.view);
  $('messages').append(run.view.element);
  follows = true;
  drawState();
  keepEnd();
  say('Answering.');
  try {
    chat.messages.push(message);
    saveChat(chat);
    await receive(run);
  } catch (e) {
    error = e;
  }
  running = null;
  finish(run, error);
}

function finish(run, error) {
  const { message } = run;
  const isEmpty = message.content === '' && !message.thought;
  if (error === null) {
    message.state = run.end;
  } else if (error.name === 'AbortError') {
    message.state = 'stopped';
  } else {
    message.state = error.code === 'lost' ? 'lost' : 'error';
    message.error = error.code === 'lost' ? undefined : error.message;
  }
  if (isEmpty && error !== null) {
    run.chat.messages.pop();
  }
  if (!run.isDropped) {
    saveChat(run.chat);
  }
  if (run.chat !== chat) {
    drawState();
    return;
  }
  if (isEmpty && error !== null) {
    views.pop().element.remove();
  } else {
    run.view.finish();
  }
  drawState();
  keepEnd();
  report(run, error, isEmpty);
}

/* Tells the reader how an answer ended. */
function report(run, error, isEmpty) {
  const isStopped = error?.name === 'AbortError';
  if (error === null) {
    say(`Answer: ${run.view.spoken()}`);
  } else if (isStopped) {
    say('Stopped.');
  } else if (error.status === 401) {
    askKey(sessionStorage.getItem('hearth.key') !== null).then((isGiven) => (isGiven ? (findModel(), retry()) : alertUser(error.message, button('Retry', retry))));
  } else if (isEmpty || error.code !== 'lost') {
    alertUser(`${error.message}${hint(error)}`, button('Retry', retry));
  } else {
    say('The connection was lost; the answer is not complete.');
  }
  if (error?.code === 'network' || error?.code === 'lost') {
    findModel();
  }
}

function hint(error) {
  if (error.code === 'context_length_exceeded') {
    return ' Start a new chat, or shorten the message.';
  }
  return error.retryS > 0 ? ` The server suggests to try again in ${error.retryS} s.` : '';
}

function send() {
  const text = $('input').value.trim();
  if (text === '' || running) {
    return;
  }
  if (editing >= 0) {
    chat.messages.length = editing;
    cancelEdit();
  }
  chat.messages.push({ role: 'user', content: text });
  $('input').value = '';
  drawChat();
  answer();
}

function retry() {
  if (running) {
    return;
  }
  while (chat.messages.at(-1)?.role === 'assistant') {
    chat.messages.pop();
  }
  if (chat.messages.length > 0) {
    drawChat();
    $('input').focus();
    answer();
  }
}

function edit(i) {
  editing = i;
  $('input').value = chat.messages[i].content;
  $('input').focus();
  alertUser('What you send now replaces your last message and its answer.', button('Keep it as it is', () => { cancelEdit(); $('input').focus(); }));
}

function cancelEdit() {
  if (editing >= 0) {
    editing = -1;
    $('input').value = '';
    clearAlert();
  }
}

function stop() {
  running?.control.abort();
}

/* --- settings and frame --------------------------------------------------------------------- */

async function openSettings() {
  const s = chats.settings();
  $('system').value = s.system;
  $('temperature').value = s.temperature ?? '';
  $('max-tokens').value = s.maxTokens ?? '';
  const number = (id) => ($(id).value === '' ? null : $(id).valueAsNumber);
  if (await askUser($('settings'), $('system')) === 'save' && !chats.saveSettings({
    system: $('system').value, temperature: number('temperature'), maxTokens: number('max-tokens') })) {
    alertUser('The browser keeps no settings for this page.');
  }
}

function drawTheme(theme) {
  $('theme').textContent = `Theme: ${theme}`;
  if (theme === 'auto') {
    delete document.documentElement.dataset.theme;
  } else {
    document.documentElement.dataset.theme = theme;
  }
}

function nextTheme() {
  const now = document.documentElement.dataset.theme ?? 'auto';
  const theme = THEMES[(THEMES.indexOf(now) + 1) % THEMES.length];
  chats.saveSettings({ theme });
  drawTheme(theme);
}

function setSidebar(isOpen) {
  $('chats').hidden = !isOpen;
  $('chats-toggle').setAttribute('aria-expanded', String(isOpen));
}

function onEscape() {
  if (document.querySelector('dialog[open]')) {
    return; /* closes the dialog */
  }
  if (narrow.matches && !$('chats').hidden) {
    setSidebar(false);
    $('chats-toggle').focus();
  } else if (running) {
    stop();
    $('input').focus();
  } else {
    cancelEdit();
  }
}

function start() {
  $('ask').addEventListener('submit', (e) => { e.preventDefault(); send(); });
  $('input').addEventListener('keydown', (e) => {
    if (e.key === 'Enter' && !e.shiftKey && !e.isComposing) {
      e.preventDefault();
      send();
    }
  });
  document.querySelectorAll('dialog .cancel').forEach((b) => b.addEventListener('click', () => b.closest('dialog').close('')));
  document.addEventListener('keydown', (e) => { if (e.key === 'Escape' && !e.isComposing) { onEscape(); } });
  $('stop').addEventListener('click', stop);
  $('new').addEventListener('click', () => show(null));
  $('export').addEventListener('click', exportAll);
  $('delete-all').addEventListener('click', removeAll);
  $('theme').addEventListener('click', nextTheme);
  $('settings-open').addEventListener('click', openSettings);
  $('chats-toggle').addEventListener('click', () => setSidebar($('chats').hidden));
  narrow.addEventListener('change', () => setSidebar(!narrow.matches));
  $('log').addEventListener('scroll', () => {
    const log = $('log');
    follows = log.scrollHeight - log.scrollTop - log.clientHeight < NEAR_END_PX;
  }, { passive: true });
  /* A message that was being written when the page went away is kept as far as it had come. */
  addEventListener('pagehide', () => {
    if (running && !running.isDropped) {
      chats.save(running.chat);
      running.isDropped = true; /* what is left of the run is the browser breaking the connection */
    }
  });
  chats.onChange(drawList);
  $('plain').hidden = hasMarkdown;
  drawTheme(chats.settings().theme);
  setSidebar(!narrow.matches);
  chat = chats.current() ?? chat;
  drawChat();
  drawList();
  findModel();
  $('input').focus();
}

start();

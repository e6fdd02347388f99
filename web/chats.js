/* chats - past conversations and settings, kept in this browser (localStorage) and nowhere else.
 *
 * One entry per chat, so that one that does not fit costs no other one: {id, title, updated, messages}. A message is
 * {role, content, thought?, state?, error?, stats?}; state is missing for what is complete, else 'running', 'stopped', 'lost',
 * 'error' or 'length'. Nothing is ever dropped to make room: when the storage is full the caller is told. */

const CHAT = 'hearth.chat.';
const CURRENT = 'hearth.current';
const SETTINGS = 'hearth.settings';
const TITLE_MAX = 60;

/* Chats that could not be written, or are not to be: they last as long as the page. */
const unsaved = new Map();

function parse(text) {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}

function stored() {
  try {
    return localStorage;
  } catch {
    return null; /* switched off in this browser */
  }
}

function isMessage(m) {
  return (m?.role === 'user' || m?.role === 'assistant') && typeof m.content === 'string';
}

export function load(id) {
  const chat = unsaved.get(id) ?? parse(stored()?.getItem(CHAT + id) ?? 'null');
  return Array.isArray(chat?.messages) && chat.messages.every(isMessage) ? { ...chat, id, title: String(chat.title) } : null;
}

/* All chats, latest first. */
export function list() {
  const ids = new Set(unsaved.keys());
  for (const key of Object.keys(stored() ?? {})) {
    if (key.startsWith(CHAT)) {
      ids.add(key.slice(CHAT.length));
    }
  }
  return [...ids].map(load).filter(Boolean).sort((a, b) => b.updated - a.updated);
}

export function fresh() {
  return { id: crypto.randomUUID?.() ?? `${Date.now()}-${Math.random().toString(36).slice(2)}`, title: '', updated: Date.now(), messages: [] };
}

/* Writes a chat; an answer that is running is written as stopped where it is. False when the browser has no room for it (it then lasts as long as the page). */
export function save(chat) {
  chat.updated = Date.now();
  const first = chat.messages.find((m) => m.role === 'user')?.content.trim().replace(/\s+/g, ' ') ?? '';
  chat.title = first.length > TITLE_MAX ? `${first.slice(0, TITLE_MAX)}\u2026` : first || 'Empty';
  try {
    const text = JSON.stringify(chat, (key, value) => (key === 'state' && value === 'running' ? 'stopped' : value));
    localStorage.setItem(CHAT + chat.id, text);
    unsaved.delete(chat.id);
    return true;
  } catch {
    unsaved.set(chat.id, chat);
    return false;
  }
}

export function remove(id) {
  unsaved.delete(id);
  stored()?.removeItem(CHAT + id);
}

/* The chat that this tab shows; a reload comes back to it. */
export function current() {
  try {
    return load(sessionStorage.getItem(CURRENT));
  } catch {
    return null;
  }
}

export function setCurrent(id) {
  try {
    sessionStorage.setItem(CURRENT, id);
  } catch {
    /* no storage: a reload begins a new chat */
  }
}

export function removeAll() {
  list().forEach((chat) => remove(chat.id));
}

/* All chats as one JSON text, to be kept as a file. */
export function exported() {
  return JSON.stringify({ program: 'hearth', exported: new Date().toISOString(), chats: list() }, null, 2);
}

export function settings() {
  const s = parse(stored()?.getItem(SETTINGS) ?? '{}') ?? {};
  return { system: '', temperature: null, maxTokens: null, theme: 'auto', ...s };
}

export function saveSettings(change) {
  try {
    localStorage.setItem(SETTINGS, JSON.stringify({ ...settings(), ...change }));
    return true;
  } catch {
    return false;
  }
}

/* Calls back when another tab changed the chats. */
export function onChange(call) {
  addEventListener('storage', (e) => {
    if (e.key === null || e.key.startsWith(CHAT)) {
      call();
    }
  });
}

/* api - what the page asks of the server: which model, and answers as they come.
 *
 * Everything goes to this origin. A key, when the server wants one, lives in sessionStorage: it is gone with the tab. */

const KEY = 'hearth.key';
const LINE_MAX = 1 << 20;

/* What went wrong, in words for the reader. `code` is the server's, or 'lost' when the connection broke, or 'network'. */
export class ApiError extends Error {
  constructor(message, { status = 0, code = '', retryS = 0 } = {}) {
    super(message);
    Object.assign(this, { status, code, retryS });
  }
}

export function setKey(text) {
  sessionStorage.setItem(KEY, text);
}

function headers() {
  const key = sessionStorage.getItem(KEY);
  return { 'Content-Type': 'application/json', ...(key ? { Authorization: `Bearer ${key}` } : {}) };
}

async function refusal(response) {
  let error = {};
  try {
    error = (await response.json()).error ?? {};
  } catch {
    /* not ours: a proxy's page, perhaps */
  }
  return new ApiError(error.message || `The server answered with status ${response.status}.`, {
    status: response.status, code: error.code || '', retryS: Number(response.headers.get('Retry-After')) || 0,
  });
}

async function ask(path, options) {
  let response;
  try {
    response = await fetch(path, { ...options, headers: headers(), cache: 'no-store', credentials: 'omit' });
  } catch (e) {
    if (e.name === 'AbortError') {
      throw e;
    }
    throw new ApiError('The server cannot be reached.', { code: 'network' });
  }
  if (!response.ok) {
    throw await refusal(response);
  }
  return response;
}

/* The model that is served: {id, meta}, or null while it is being loaded. */
export async function model() {
  const list = await (await ask('/v1/models')).json();
  return list.data?.[0] ?? null;
}

/* The data of each event of a stream of Server-Sent Events. */
async function* events(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = '';
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) {
        return;
      }
      const lines = (rest + value).split(/\r?\n/);
      rest = lines.pop();
      if (rest.length > LINE_MAX) {
        throw new ApiError('The server sent a line without end.', { code: 'lost' });
      }
      for (const line of lines) {
        if (line.startsWith('data:')) {
          yield line.slice(5).trim();
        }
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

/* The chunks of an answer, parsed. Returns after the last one; throws ApiError when the stream breaks off before it, and
 * AbortError when `signal` fires. */
export async function* chat(request, signal) {
  const body = JSON.stringify({ ...request, stream: true, stream_options: { include_usage: true } });
  const response = await ask('/v1/chat/completions', { method: 'POST', body, signal });
  const lost = new ApiError('The connection was lost before the answer was complete.', { code: 'lost' });
  try {
    for await (const data of events(response.body)) {
      if (data === '[DONE]') {
        return;
      }
      const chunk = JSON.parse(data);
      if (chunk.error) {
        throw new ApiError(chunk.error.message || 'The server gave up on this answer.', { code: chunk.error.code || '' });
      }
      yield chunk;
    }
  } catch (e) {
    throw e instanceof ApiError || e.name === 'AbortError' ? e : lost;
  }
  throw lost;
}

// A client of microticks: sends sessions and their events in order, each exactly once.

const RETRY_MS = 2000, MAX_RETRY_MS = 60000;

// Not randomUUID, which is only available over HTTPS and on localhost.
const randomId = () => Array.from(crypto.getRandomValues(new Uint32Array(4)), (n) => n.toString(36)).join('');

export class Session {
  #server;
  #token;
  #queue = Promise.resolve();

  // Starts a session. Later requests wait for its token.
  constructor(server, key) {
    this.#server = server;
    this.#send('/sessions', { consumer_key: key }, (response) => { this.#token = response.token; });
  }

  track(action, data) {
    this.#send('/events', { action, data: JSON.stringify(data) });
  }

  // Resolves once everything has been sent.
  stop() {
    return this.#send('/sessions/stop', {});
  }

  #send(path, fields, onSuccess = () => {}) {
    // The timestamp is that of the event, however long sending takes.
    const body = { ...fields, ts: new Date().toISOString() }, idempotencyKey = randomId();
    this.#queue = this.#queue.then(async () => {
      const token = path === '/sessions' ? {} : { token: this.#token };
      const response = await this.#post(path, { ...body, ...token }, idempotencyKey);
      if (response.ok) onSuccess(await response.json());
      else console.warn(`Metronome: ${await response.text()}`);
    }).catch((error) => console.warn(`Metronome: ${error}`));
    return this.#queue;
  }

  async #post(path, fields, idempotencyKey) {
    for (let pause = RETRY_MS; ; pause = Math.min(2 * pause, MAX_RETRY_MS)) {
      try {
        const response = await fetch(this.#server + path, {
          method: 'POST',
          body: new URLSearchParams(fields),
          // Retries do not create another session or event.
          headers: { 'Idempotency-Key': idempotencyKey },
          keepalive: true,
        });
        if (response.status < 500 && response.status !== 429) return response;
      } catch { /* The network or Metronome is unavailable. */ }
      await new Promise((resolve) => setTimeout(resolve, pause));
    }
  }
}

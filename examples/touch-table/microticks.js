// A client for microticks: sessions, and what happens in them, sent one after the other and each of them once.

const RETRY_MS = 2000, LONGEST_RETRY_MS = 60000;

// Not randomUUID: that is there over https and on localhost only.
const unique = () => Array.from(crypto.getRandomValues(new Uint32Array(4)), (n) => n.toString(36)).join('');

export class Session {
  #server;
  #token;
  #line = Promise.resolve();

  // Starts a session: its token comes with the answer, and whatever happens meanwhile waits for it.
  constructor(server, key) {
    this.#server = server;
    this.#send('/sessions', { consumer_key: key }, (answer) => { this.#token = answer.token; });
  }

  happened(action, data) {
    this.#send('/events', { action, data: JSON.stringify(data) });
  }

  // Resolves once all is told.
  stop() {
    return this.#send('/sessions/stop', {});
  }

  #send(path, fields, then = () => {}) {
    // The time is that of now, however long it takes to tell it.
    const said = { ...fields, ts: new Date().toISOString() }, name = unique();
    this.#line = this.#line.then(async () => {
      const token = path === '/sessions' ? {} : { token: this.#token };
      const answer = await this.#post(path, { ...said, ...token }, name);
      if (answer.ok) then(await answer.json());
      else console.warn(`Metronome: ${await answer.text()}`);
    }).catch((error) => console.warn(`Metronome: ${error}`));
    return this.#line;
  }

  async #post(path, fields, name) {
    for (let pause = RETRY_MS; ; pause = Math.min(2 * pause, LONGEST_RETRY_MS)) {
      try {
        const answer = await fetch(this.#server + path, {
          method: 'POST',
          body: new URLSearchParams(fields),
          // Sent again it is the same session, event or stop, and not another one.
          headers: { 'Idempotency-Key': name },
          keepalive: true,
        });
        if (answer.status < 500 && answer.status !== 429) return answer;
      } catch { /* the network is away, or Metronome is */ }
      await new Promise((go) => setTimeout(go, pause));
    }
  }
}

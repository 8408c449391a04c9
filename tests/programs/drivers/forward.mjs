// Sends views with @fluent-org/logger, which waits for acknowledgements and sends again: forward.mjs PORT ITEM COUNT.
import { createRequire } from 'node:module'
import { setTimeout as sleep } from 'node:timers/promises'

const { FluentClient } = createRequire(`${process.env.NODE_PATH}/`)('@fluent-org/logger')
const [port, item, count] = process.argv.slice(2)
const client = new FluentClient('app', {
  socket: { host: '127.0.0.1', port: Number(port), timeout: 3000, reconnect: { backoff: 2, delay: 100, maxDelay: 500 } },
  ack: { ackTimeout: 1000 },
  eventMode: process.env.MODE ?? 'PackedForward',
  eventRetry: { attempts: 50, backoff: 1.5, delay: 100, maxDelay: 500 },
  security: process.env.SHARED_KEY ? { clientHostname: 'client.example', sharedKey: process.env.SHARED_KEY } : undefined
})
const emitted = []
for (let number = 0; number < Number(count); number++) {
  emitted.push(client.emit('seen', { id: item, event: 'view', n: number }))
  await sleep(10)
}
await Promise.all(emitted)
console.log('done')
await client.disconnect()
process.exit(0)

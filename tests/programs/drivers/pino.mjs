// Logs views with pino-elasticsearch: pino.mjs URL ITEM COUNT.
import { createRequire } from 'node:module'
import { setTimeout as sleep } from 'node:timers/promises'

const load = createRequire(`${process.env.NODE_PATH}/`)
const [url, item, count] = process.argv.slice(2)
const stream = load('pino-elasticsearch')({
  node: url, index: 'pino', esVersion: 8, flushBytes: 1000, flushInterval: 200, opType: 'create'
})
for (const name of ['error', 'insertError', 'unknown']) stream.on(name, (error) => console.log(name, error))
const log = load('pino')({}, stream)

for (let number = 0; number < Number(count); number++) {
  log.info({ id: item, event: 'view', n: number }, 'seen')
  await sleep(5)
}
await new Promise((resolve) => { stream.on('finish', resolve); stream.end() })
await sleep(1000)
console.log('done')
process.exit(0)

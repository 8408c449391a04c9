// Logs views with winston-elasticsearch: winston.mjs URL ITEM COUNT.
import { createRequire } from 'node:module'
import { setTimeout as sleep } from 'node:timers/promises'

const load = createRequire(`${process.env.NODE_PATH}/`)
const [url, item, count] = process.argv.slice(2)
const { ElasticsearchTransport } = load('winston-elasticsearch')
const transport = new ElasticsearchTransport({
  clientOpts: { node: url }, index: 'winston', flushInterval: 200, buffering: true, retryLimit: 100,
  transformer: ({ timestamp, level, message, meta }) => (
    { '@timestamp': timestamp ?? new Date().toISOString(), severity: level, message, ...meta }
  )
})
transport.on('error', (error) => console.log('error', error.message))
const write = transport.bulkWriter.write.bind(transport.bulkWriter)
let underWay = 0
transport.bulkWriter.write = async (body) => {
  underWay++
  await write(body).finally(() => underWay--)
}
const logger = load('winston').createLogger({ transports: [transport] })
logger.on('error', (error) => console.log('error', error.message))

for (let number = 0; number < Number(count); number++) {
  logger.info('seen', { id: item, event: 'view', n: number })
  await sleep(20)
}
await transport.flush()
// What could not be sent goes back to what waits: it is done once nothing has waited or been under way for a second.
for (let quiet = 0; quiet < 10; quiet++) {
  await sleep(100)
  if (transport.bulkWriter.bulk.length || underWay) quiet = -1
}
console.log('done')
process.exit(0)

// Sends views with the official client of Elasticsearch for Node: bulk.mjs URL ITEM COUNT.
import { createRequire } from 'node:module'
import { setTimeout as sleep } from 'node:timers/promises'

const { Client } = createRequire(`${process.env.NODE_PATH}/`)('@elastic/elasticsearch')
const [url, item, count] = process.argv.slice(2)
const client = new Client({ node: url })
const each = 10

console.log((await client.info()).version.number)
for (let start = 0; start < Number(count); start += each) {
  const datasource = Array.from({ length: each }, (_, at) => ({
    id: item, event: 'view', '@timestamp': '2026-03-01T12:00:00Z', n: start + at
  }))
  for (;;) {
    try {
      const result = await client.helpers.bulk({
        datasource,
        wait: 100,
        onDocument: (doc) => ({ create: { _index: 'logs', _id: `${item}-${doc.n}` } }),
        onDrop: ({ status, error }) => console.log('dropped', status, error)
      })
      console.log(start + each, result.successful)
      break
    } catch (error) {
      console.log('again:', error.name)
      await sleep(200)
    }
  }
  await sleep(50)
}

// Tracks views with matomo-tracker: matomo.mjs URL PATH COUNT. The first half goes singly, the rest in one request.
import { createRequire } from 'node:module'
import { setTimeout as sleep } from 'node:timers/promises'

const [url, path, count] = process.argv.slice(2)
const MatomoTracker = createRequire(`${process.env.NODE_PATH}/`)('matomo-tracker')
const tracker = new MatomoTracker(1, `${url}/matomo.php`)
tracker.on('error', (error) => { console.log('error', error.message); process.exitCode = 1 })

const page = { url: `http://data.example.org${path}`, action_name: 'A page', ua: 'Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0' }
const half = Math.floor(Number(count) / 2)
for (let number = 0; number < half; number++) {
  tracker.track(page)
  await sleep(20)
}
await new Promise((resolve) => {
  tracker.trackBulk(Array.from({ length: Number(count) - half }, () => page), (answer) => {
    console.log(answer)
    resolve()
  })
})
await sleep(200)
// It leaves its connections open.
process.exit()

// Tracks views with @umami/node: umami.mjs URL PATH COUNT.
import { createRequire } from 'node:module'

const [url, path, count] = process.argv.slice(2)
const { Umami } = createRequire(`${process.env.NODE_PATH}/`)('@umami/node')
const umami = new Umami({ websiteId: '94db1cb1-74f4-4a40-ad6c-962362670409', hostUrl: url })
for (let number = 0; number < Number(count); number++) {
  const answer = await umami.track({ url: path, hostname: 'data.example.org', title: 'A page' })
  const body = await answer.json()
  if (!answer.ok || !body.sessionId) throw new Error(`${answer.status} ${JSON.stringify(body)}`)
}
await umami.track('signup', { plan: 'gold' })
await umami.identify({ team: 'a' })

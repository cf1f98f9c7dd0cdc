// kafkajs: admin, produce (gzip, idempotent), consume in a group of two.
const { Kafka, CompressionTypes, logLevel } = require('kafkajs')
const assert = require('assert')

const topic = `node-${Math.random().toString(36).slice(2)}`
const kafka = new Kafka({ clientId: 'interop', brokers: [process.argv[2]], logLevel: logLevel.ERROR })

async function main() {
  const admin = kafka.admin()
  await admin.connect()
  assert(await admin.createTopics({ topics: [{ topic, numPartitions: 3 }], waitForLeaders: true }))
  const wanted = new Set()
  for (const [idempotent, compression] of [[false, CompressionTypes.GZIP], [true, CompressionTypes.None]]) {
    const producer = kafka.producer({ idempotent, maxInFlightRequests: 1 })
    await producer.connect()
    for (let round = 0; round < 10; round++) {
      const messages = []
      for (let index = 0; index < 30; index++) {
        const key = `${idempotent}-${round}-${index}`
        wanted.add(key)
        messages.push({ key, value: index % 10 ? `value ${key}` : null, headers: { a: '1' }, partition: index % 3 })
      }
      await producer.send({ topic, messages, compression, acks: -1 })
    }
    await producer.disconnect()
  }
  const offsets = await admin.fetchTopicOffsets(topic)
  assert.equal(offsets.reduce((sum, part) => sum + Number(part.high), 0), wanted.size)
  const seen = new Set()
  const consumers = []
  await new Promise(async (done, failed) => {
    setTimeout(() => failed(new Error(`read ${seen.size} of ${wanted.size}`)), 60000).unref()
    for (let index = 0; index < 2; index++) {
      const consumer = kafka.consumer({ groupId: `group-${topic}`, sessionTimeout: 10000, heartbeatInterval: 1000 })
      consumers.push(consumer)
      await consumer.connect()
      await consumer.subscribe({ topic, fromBeginning: true })
      await consumer.run({
        eachMessage: async ({ message }) => {
          seen.add(message.key.toString())
          if (seen.size === wanted.size) done()
        },
      })
    }
  })
  for (const consumer of consumers) {
    await consumer.stop()
    await consumer.disconnect()
  }
  const { groups } = await admin.listGroups()
  assert(groups.some((group) => group.groupId === `group-${topic}`))
  // A member that was joining when it was stopped is only gone after its session.
  for (let tries = 0; ; tries++) {
    try {
      await admin.deleteGroups([`group-${topic}`])
      break
    } catch (error) {
      if (tries === 20) throw error
      await new Promise((again) => setTimeout(again, 1000))
    }
  }
  await admin.deleteTopics({ topics: [topic] })
  await admin.disconnect()
  console.log('kafkajs: ok')
}
main().then(() => process.exit(0), (error) => { console.error(error); process.exit(1) })

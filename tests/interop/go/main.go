// franz-go: idempotent produce with every codec, consume in a group of two with the cooperative and the sticky balancer,
// a static member, offsets committed.
package main

import (
	"context"
	"fmt"
	"log"
	"os"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

func main() {
	seed := os.Args[1]
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Second)
	defer cancel()
	topic := fmt.Sprintf("go-%d", time.Now().UnixNano())
	codecs := []kgo.CompressionCodec{kgo.NoCompression(), kgo.GzipCompression(), kgo.SnappyCompression(), kgo.Lz4Compression(), kgo.ZstdCompression()}
	total := 0
	for index, codec := range codecs {
		client, err := kgo.NewClient(kgo.SeedBrokers(seed), kgo.AllowAutoTopicCreation(), kgo.DefaultProduceTopic(topic), kgo.ProducerBatchCompression(codec))
		check(err)
		for number := 0; number < 500; number++ {
			record := kgo.StringRecord(fmt.Sprintf("codec %d number %d", index, number))
			record.Headers = []kgo.RecordHeader{{Key: "h", Value: []byte("1")}, {Key: "h", Value: nil}}
			client.Produce(ctx, record, func(_ *kgo.Record, err error) { check(err) })
			total++
		}
		check(client.Flush(ctx))
		client.Close()
	}
	for name, balancer := range map[string]kgo.GroupBalancer{
		"cooperative": kgo.CooperativeStickyBalancer(), "sticky": kgo.StickyBalancer(), "range": kgo.RangeBalancer(), "round-robin": kgo.RoundRobinBalancer(),
	} {
		var lock sync.Mutex
		seen := map[string]bool{}
		done := make(chan struct{})
		var members []*kgo.Client
		for index := 0; index < 2; index++ {
			member, err := kgo.NewClient(kgo.SeedBrokers(seed), kgo.ConsumerGroup(topic+name), kgo.ConsumeTopics(topic),
				kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.Balancers(balancer), kgo.InstanceID(fmt.Sprint("static-", index)))
			check(err)
			members = append(members, member)
			go func() {
				for {
					fetches := member.PollFetches(ctx)
					if fetches.IsClientClosed() || ctx.Err() != nil {
						return
					}
					fetches.EachError(func(_ string, _ int32, err error) { check(err) })
					fetches.EachRecord(func(record *kgo.Record) {
						lock.Lock()
						defer lock.Unlock()
						seen[string(record.Value)] = true
						if len(seen) == total {
							select {
							case <-done:
							default:
								close(done)
							}
						}
					})
				}
			}()
		}
		select {
		case <-done:
		case <-ctx.Done():
			log.Fatalf("%s: read %d of %d", name, len(seen), total)
		}
		check(members[0].CommitUncommittedOffsets(ctx))
		for _, member := range members {
			member.Close()
		}
	}
	fmt.Println("franz-go: ok")
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

// Bulks views with elasticsearch-go: bulk URL ITEM COUNT. The bulk indexer names its documents.
package main

import (
	"bytes"
	"context"
	"fmt"
	"log"
	"os"
	"strconv"
	"time"

	"github.com/elastic/go-elasticsearch/v8"
	"github.com/elastic/go-elasticsearch/v8/esutil"
)

func main() {
	url, item := os.Args[1], os.Args[2]
	count, err := strconv.Atoi(os.Args[3])
	check(err)
	client, err := elasticsearch.NewClient(elasticsearch.Config{
		Addresses:     []string{url},
		RetryOnStatus: []int{429, 502, 503, 504},
		MaxRetries:    100,
		RetryBackoff:  func(int) time.Duration { return 200 * time.Millisecond },
	})
	check(err)
	info, err := client.Info()
	check(err)
	if info.IsError() {
		log.Fatal(info)
	}
	indexer, err := esutil.NewBulkIndexer(esutil.BulkIndexerConfig{
		Client: client, Index: "logs", NumWorkers: 1, FlushBytes: 400,
		OnError: func(_ context.Context, err error) { log.Fatal(err) },
	})
	check(err)
	for number := 0; number < count; number++ {
		body := fmt.Sprintf(`{"id":%q,"event":"view","n":%d}`, item, number)
		check(indexer.Add(context.Background(), esutil.BulkIndexerItem{
			Action: "create", DocumentID: fmt.Sprintf("%s-%d", item, number), Body: bytes.NewReader([]byte(body)),
		}))
		time.Sleep(20 * time.Millisecond)
	}
	check(indexer.Close(context.Background()))
	if stats := indexer.Stats(); stats.NumFailed > 0 || stats.NumCreated != uint64(count) {
		log.Fatalf("%+v", stats)
	}
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

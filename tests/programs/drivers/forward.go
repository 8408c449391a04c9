// Logs views with fluent-logger-golang: forward HOST PORT ITEM COUNT. Each is acknowledged.
package main

import (
	"log"
	"os"
	"strconv"
	"time"

	"github.com/fluent/fluent-logger-golang/fluent"
)

func main() {
	port, err := strconv.Atoi(os.Args[2])
	check(err)
	count, err := strconv.Atoi(os.Args[4])
	check(err)
	logger, err := fluent.New(fluent.Config{
		FluentHost: os.Args[1], FluentPort: port, RequestAck: true, SubSecondPrecision: true,
		MaxRetry: 200, RetryWait: 100, MaxRetryWait: 200,
	})
	check(err)
	for number := 0; number < count; number++ {
		check(logger.Post("app.views", map[string]interface{}{"id": os.Args[3], "event": "view", "n": number}))
		time.Sleep(20 * time.Millisecond)
	}
	check(logger.Close())
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

// Clock is a guest with a runtime of its own: goroutines, timers, random numbers, arguments and environment.
package main

import (
	"fmt"
	"math/rand"
	"os"
	"time"
)

func main() {
	begun := time.Now()
	ticks := make(chan int)
	go func() {
		for i := 0; i < 3; i++ {
			time.Sleep(10 * time.Millisecond)
			ticks <- i
		}
		close(ticks)
	}()
	for tick := range ticks {
		fmt.Println("tick", tick)
	}
	fmt.Println("slept enough:", time.Since(begun) >= 30*time.Millisecond)
	fmt.Println("random:", rand.Int63() != rand.Int63())
	fmt.Println("args:", os.Args[1:], "env:", os.Getenv("GREETING"))
	_, err := os.ReadFile("/etc/passwd")
	fmt.Println("file:", err)
	os.Exit(len(os.Args))
}

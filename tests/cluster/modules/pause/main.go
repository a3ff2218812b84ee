// Pause is the first process of a pod's sandbox and of a test machine: it does nothing, and buries the orphans that it is given.
package main

import (
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ended, orphaned := make(chan os.Signal, 1), make(chan os.Signal, 1)
	signal.Notify(ended, syscall.SIGINT, syscall.SIGTERM)
	signal.Notify(orphaned, syscall.SIGCHLD)
	for {
		select {
		case <-ended:
			return
		case <-orphaned:
			for pid := 1; pid > 0; {
				pid, _ = syscall.Wait4(-1, nil, syscall.WNOHANG, nil)
			}
		}
	}
}

//go:build !linux

package main

import "time"

// suspended is not known here: idle time counts while the machine sleeps, and locks then.
func suspended() time.Duration { return 0 }

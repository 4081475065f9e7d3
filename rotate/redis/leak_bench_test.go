package redis

import (
	"testing"

	"guard/rotate/rotatetest"
)

func BenchmarkLeak(b *testing.B) { rotatetest.Leak(b, open(start(b, true), "admin")) }

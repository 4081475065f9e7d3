package mysql

import (
	"testing"

	"guard/rotate/rotatetest"
)

func BenchmarkLeak(b *testing.B) { rotatetest.Leak(b, open(start(b), "admin")) }

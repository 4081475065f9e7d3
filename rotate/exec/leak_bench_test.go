package exec

import (
	"testing"

	"guard/rotate/rotatetest"
)

func BenchmarkLeak(b *testing.B) { rotatetest.Leak(b, open(`"tok_" + secrets.token_hex(16)`)) }

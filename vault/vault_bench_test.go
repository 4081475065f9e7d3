package vault

import (
	"fmt"
	"strings"
	"testing"

	"guard"
)

// filled is a vault with n secrets in one context.
func filled(b *testing.B, n int) (*Vault, string, KeyFile) {
	v, dir, key := opened(b)
	err := v.edit("default", true, func(seg *segment, ck []byte) error {
		for i := range n {
			e := entry{Meta: complete(guard.Credential{Name: fmt.Sprintf("n%05d", i), Context: "default"}, []byte("ghp_"+strings.Repeat("a", 36)))}
			e.Meta.Placeholder = strings.Repeat("p", 40)
			e.Meta.Version = v.put(&e, ck, fmt.Appendf(nil, "ghp_%036d", i), Current).Number
			seg.Credentials = append(seg.Credentials, e)
		}
		return nil
	})
	if err != nil {
		b.Fatal(err)
	}
	return v, dir, key
}

func BenchmarkOpenAndGet(b *testing.B) {
	for _, n := range []int{100, 10_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			_, dir, key := filled(b, n)
			for b.Loop() {
				v, err := Open(dir, key)
				if err != nil {
					b.Fatal(err)
				}
				s, err := v.Get(guard.SecretID{Name: "n00050"})
				if err != nil {
					b.Fatal(err)
				}
				s.Wipe()
				v.Close()
			}
		})
	}
}

func BenchmarkGet(b *testing.B) {
	v, _, _ := filled(b, 10_000)
	for b.Loop() {
		s, err := v.Get(guard.SecretID{Name: "n09999"})
		if err != nil {
			b.Fatal(err)
		}
		s.Wipe()
	}
}

func BenchmarkSet(b *testing.B) {
	v, _, _ := filled(b, 100)
	i := 0
	for b.Loop() {
		i++
		if _, err := v.Set(guard.Credential{Name: fmt.Sprint("m", i)}, secret(fmt.Sprintf("value-%020d", i))); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkValues(b *testing.B) {
	v, _, _ := filled(b, 100)
	for b.Loop() {
		if vs, err := v.Values(""); err != nil || len(vs) < 100 {
			b.Fatal(len(vs), err)
		}
	}
}

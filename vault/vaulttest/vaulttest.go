// Package vaulttest says what a vault.Store must do. Every implementation runs it, against
// the real thing.
package vaulttest

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"guard"
	"guard/vault"
)

// Store checks s, which holds nothing under names that start with prefix, and does so
// at the end.
func Store(t *testing.T, s vault.Store, prefix string) {
	ctx := t.Context()
	value := func() guard.Secret { return guard.NewSecret([]byte(rand.Text())) }
	get := func(t *testing.T, name string, version int) (guard.Secret, int) {
		t.Helper()
		got, n, err := s.Get(ctx, name, version)
		if err != nil {
			t.Fatalf("Get(%s, %d): %v", name, version, err)
		}
		return got, n
	}
	same := func(t *testing.T, got, want guard.Secret) {
		t.Helper()
		if !bytes.Equal(got.Reveal(), want.Reveal()) {
			t.Fatal("another value came back than was put")
		}
	}
	want := func(t *testing.T, err, is error) {
		t.Helper()
		if !errors.Is(err, is) {
			t.Fatalf("error %v, want %v", err, is)
		}
	}

	t.Run("absent", func(t *testing.T) {
		_, _, err := s.Get(ctx, prefix+"absent", 0)
		want(t, err, vault.ErrNotFound)
		_, _, err = s.Get(ctx, prefix+"absent", 3)
		want(t, err, vault.ErrNotFound)
		want(t, s.Destroy(ctx, prefix+"absent", 1), vault.ErrNotFound)
		_, err = s.Put(ctx, prefix+"absent", 2, value())
		want(t, err, vault.ErrConflict)
		_, _, err = s.Get(ctx, prefix+"absent", 0)
		want(t, err, vault.ErrNotFound) // what was refused left nothing
	})
	t.Run("versions", func(t *testing.T) {
		name := prefix + "versions"
		vs := []guard.Secret{value(), value(), value()}
		for i, v := range vs {
			n, err := s.Put(ctx, name, i, v)
			if err != nil || n != i+1 {
				t.Fatalf("Put after %d: version %d, %v", i, n, err)
			}
		}
		got, n := get(t, name, 0)
		if n != 3 {
			t.Fatalf("the newest is %d, want 3", n)
		}
		same(t, got, vs[2])
		got.Wipe() // the caller's copy, not the store's
		for i, v := range vs {
			got, n := get(t, name, i+1)
			if n != i+1 {
				t.Fatalf("version %d came back as %d", i+1, n)
			}
			same(t, got, v)
		}
		_, _, err := s.Get(ctx, name, 4)
		want(t, err, vault.ErrNotFound)
	})
	t.Run("compare and set", func(t *testing.T) {
		name := prefix + "cas"
		first := value()
		if _, err := s.Put(ctx, name, 0, first); err != nil {
			t.Fatal(err)
		}
		for _, after := range []int{0, 2, 7} {
			_, err := s.Put(ctx, name, after, value())
			want(t, err, vault.ErrConflict)
		}
		got, n := get(t, name, 0)
		if n != 1 {
			t.Fatalf("what was refused made version %d", n)
		}
		same(t, got, first)

		// Of several at once, one.
		var wg sync.WaitGroup
		errs := make([]error, 8)
		for i := range errs {
			wg.Go(func() { _, errs[i] = s.Put(ctx, name, 1, value()) })
		}
		wg.Wait()
		won := 0
		for _, err := range errs {
			if err == nil {
				won++
			} else if !errors.Is(err, vault.ErrConflict) {
				t.Errorf("a writer that lost got %v", err)
			}
		}
		if _, n := get(t, name, 0); won != 1 || n != 2 {
			t.Fatalf("%d of %d writers won, and the newest is %d", won, len(errs), n)
		}
	})
	t.Run("destroy", func(t *testing.T) {
		name := prefix + "destroy"
		second := value()
		for i, v := range []guard.Secret{value(), second} {
			if _, err := s.Put(ctx, name, i, v); err != nil {
				t.Fatal(err)
			}
		}
		for range 2 {
			if err := s.Destroy(ctx, name, 1); err != nil {
				t.Fatal(err)
			}
		}
		_, _, err := s.Get(ctx, name, 1)
		want(t, err, vault.ErrDestroyed)
		if errors.Is(err, vault.ErrNotFound) {
			t.Fatal("destroyed is told as never there")
		}
		got, _ := get(t, name, 2)
		same(t, got, second)
		want(t, s.Destroy(ctx, name, 9), vault.ErrNotFound)
		// The newest one too, and its number is not given again.
		if err := s.Destroy(ctx, name, 2); err != nil {
			t.Fatal(err)
		}
		_, _, err = s.Get(ctx, name, 0)
		want(t, err, vault.ErrDestroyed)
		if n, err := s.Put(ctx, name, 2, value()); err != nil || n != 3 {
			t.Fatalf("after the newest was destroyed: version %d, %v", n, err)
		}
	})
	t.Run("bytes", func(t *testing.T) {
		for i, b := range [][]byte{
			[]byte("-----BEGIN X-----\nline one\nline two\n-----END X-----\n"), []byte("ü ☃ \U0001f511 snow and key"),
			{0xff, 0xfe, 0, 1, 2, 3, 0x80, 0x81, 0, 'x'}, []byte(`"quoted\\" {"a":1} \u0000 <&>`), bytes.Repeat([]byte("0123456789abcdef"), 2048),
		} {
			name := fmt.Sprintf("%sbytes-%d", prefix, i)
			if _, err := s.Put(ctx, name, 0, guard.NewSecret(bytes.Clone(b))); err != nil {
				t.Fatal(err)
			}
			got, _ := get(t, name, 0)
			same(t, got, guard.NewSecret(b))
		}
	})
	t.Run("names", func(t *testing.T) {
		for _, name := range []string{"", ".", "..", "../" + prefix + "x", prefix + "x/../../y", prefix + "a//b", prefix + "x?version=1", prefix + "x#y", prefix + "%2e%2e/x", prefix + "\r\nX-Vault-Token: y"} {
			if _, err := s.Put(ctx, name, 0, value()); err == nil {
				t.Errorf("a value was put at %q", name)
			}
			if _, _, err := s.Get(ctx, name, 0); err == nil {
				t.Errorf("a value was got at %q", name)
			}
		}
	})
	t.Run("errors", func(t *testing.T) {
		c := rand.Text()
		_, err := s.Put(ctx, prefix+"errors", 5, guard.NewSecret([]byte(c)))
		if err == nil || strings.Contains(err.Error(), c) {
			t.Fatalf("error %v", err)
		}
	})
	t.Run("ended", func(t *testing.T) {
		ended, cancel := context.WithCancel(ctx)
		cancel()
		if _, _, err := s.Get(ended, prefix+"versions", 0); err != nil && !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
	})
}

package main

import (
	"encoding/pem"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"guard/internal/testutil"
)

// TestJavaStoreIsRead has Java's own tool read what javaStore writes.
func TestJavaStoreIsRead(t *testing.T) {
	keytool, err := exec.LookPath("keytool")
	if err != nil {
		t.Skipf("no Java on this machine: %v", err)
	}
	var bundle []byte
	for range 3 {
		bundle = append(bundle, "# a comment between\n"...)
		bundle = append(bundle, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: testutil.NewCA(t).Cert.Raw})...)
	}
	file := filepath.Join(t.TempDir(), "cacerts")
	store := javaStore(bundle)
	if err := os.WriteFile(file, store, 0o600); err != nil {
		t.Fatal(err)
	}
	list := func() (string, error) {
		out, err := exec.CommandContext(t.Context(), keytool, "-list", "-keystore", file, "-storepass", javaPassword).CombinedOutput()
		return string(out), err
	}
	if out, err := list(); err != nil || !strings.Contains(out, "3 entries") || strings.Count(out, "trustedCertEntry") != 3 {
		t.Errorf("%v: %s", err, out)
	}
	store[len(store)-1] ^= 1
	if err := os.WriteFile(file, store, 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := list(); err == nil {
		t.Errorf("a broken one is read: %s", out)
	}
}

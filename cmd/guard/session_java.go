package main

import (
	"bytes"
	"crypto/sha1"
	"encoding/binary"
	"encoding/pem"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"unicode/utf16"

	"guard/supervisor/sandbox"
)

// javaPassword is what every JDK opens its own trust store with. It protects
// nothing: the store holds public certificates.
const javaPassword = "changeit"

// javaStores is where the trust stores of the machine's Java runtimes are, real
// paths. Java heeds no variable for roots; in a session these files hold the
// session's CA too.
func javaStores(home string) []string {
	candidates := []string{"/etc/ssl/certs/java/cacerts", "/etc/pki/ca-trust/extracted/java/cacerts", "/etc/pki/java/cacerts"}
	runtimes := []string{home}
	if java, err := exec.LookPath("java"); err == nil {
		if real, err := filepath.EvalSymlinks(java); err == nil {
			runtimes = append(runtimes, filepath.Dir(filepath.Dir(real)))
		}
	}
	for _, r := range runtimes {
		if filepath.IsAbs(r) {
			candidates = append(candidates, filepath.Join(r, "lib/security/cacerts"), filepath.Join(r, "jre/lib/security/cacerts"))
		}
	}
	var found []string
	for _, c := range candidates {
		real, err := filepath.EvalSymlinks(c)
		if err != nil || slices.Contains(found, real) {
			continue
		}
		if info, err := os.Stat(real); err == nil && info.Mode().IsRegular() {
			found = append(found, real)
		}
	}
	return found
}

// javaFiles shows Java runtimes the roots of bundle (PEM).
func javaFiles(bundle []byte, home string) []sandbox.File {
	stores := javaStores(home)
	if len(stores) == 0 {
		return nil
	}
	content := javaStore(bundle)
	var files []sandbox.File
	for _, p := range stores {
		files = append(files, sandbox.File{Path: p, Content: content, Mode: 0o444})
	}
	return files
}

// javaOptions names a trust store to Java where its own cannot be replaced. Java
// says on its standard error that it took them.
func javaOptions(path string) string {
	return "-Djavax.net.ssl.trustStore=" + path + " -Djavax.net.ssl.trustStoreType=JKS -Djavax.net.ssl.trustStorePassword=" + javaPassword
}

// javaStore is a Java key store (JKS, version 2) of the certificates in bundle, as
// sun.security.provider.JavaKeyStore reads it: every entry is a trusted certificate
// (tag 2), and a keyed SHA-1 of all of it is at the end.
func javaStore(bundle []byte) []byte {
	var entries bytes.Buffer
	n := uint32(0)
	word := func(s string) { // the length in bytes, as writeUTF; ASCII only
		_ = binary.Write(&entries, binary.BigEndian, uint16(len(s)))
		entries.WriteString(s)
	}
	for rest := bundle; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			continue
		}
		_ = binary.Write(&entries, binary.BigEndian, uint32(2))
		word(fmt.Sprintf("root-%d", n))
		_ = binary.Write(&entries, binary.BigEndian, uint64(0)) // made at
		word("X.509")
		_ = binary.Write(&entries, binary.BigEndian, uint32(len(block.Bytes)))
		entries.Write(block.Bytes)
		n++
	}
	out := binary.BigEndian.AppendUint32(nil, 0xfeedfeed)
	out = binary.BigEndian.AppendUint32(out, 2)
	out = binary.BigEndian.AppendUint32(out, n)
	out = append(out, entries.Bytes()...)
	sum := sha1.New() // the format's own
	for _, c := range utf16.Encode([]rune(javaPassword)) {
		sum.Write([]byte{byte(c >> 8), byte(c)})
	}
	sum.Write([]byte("Mighty Aphrodite"))
	sum.Write(out)
	return sum.Sum(out)
}

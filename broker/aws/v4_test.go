package aws

import (
	"bytes"
	"encoding/hex"
	"io"
	nethttp "net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// The key pair of AWS's own examples, in parts: it opens nothing, and looks as if.
func example(slash string) keys {
	return keys{id: "AKIA" + "IOSFODNN7" + "EXAMPLE", secret: "wJalrXUtnFEMI/" + "K7MDENG" + slash + "bPxRfiCY" + "EXAMPLEKEY"}
}

func request(t testing.TB, method, url string, header map[string]string, body string) *nethttp.Request {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	r.RequestURI = ""
	for k, v := range header {
		if k == "Host" {
			r.Host = v
			continue
		}
		r.Header.Set(k, v)
	}
	return r
}

// The examples of "Signature calculations for the Authorization header" and
// "Authenticating requests: using query parameters" in the S3 documentation, and of
// the signing process in the general reference.
func TestDocumentedSignatures(t *testing.T) {
	for _, c := range []struct {
		name, method, url, auth, payload, want string
		header                                 map[string]string
		keys                                   keys
	}{
		{
			name: "get", method: "GET", url: "https://examplebucket.s3.amazonaws.com/test.txt", keys: example("/"), payload: emptySum,
			header: map[string]string{"Range": "bytes=0-9", "X-Amz-Content-Sha256": emptySum, "X-Amz-Date": "20130524T000000Z"},
			auth:   "/20130524/us-east-1/s3/aws4_request, SignedHeaders=host;range;x-amz-content-sha256;x-amz-date",
			want:   "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41",
		},
		{
			name: "put", method: "PUT", url: "https://examplebucket.s3.amazonaws.com/test$file.text", keys: example("/"), payload: "44ce7dd67c959e0d3524ffac1771dfbba87d2b6b4b4e99e42034a8b803f8b072",
			header: map[string]string{"Date": "Fri, 24 May 2013 00:00:00 GMT", "X-Amz-Content-Sha256": "44ce7dd67c959e0d3524ffac1771dfbba87d2b6b4b4e99e42034a8b803f8b072", "X-Amz-Date": "20130524T000000Z", "X-Amz-Storage-Class": "REDUCED_REDUNDANCY"},
			auth:   "/20130524/us-east-1/s3/aws4_request, SignedHeaders=date;host;x-amz-content-sha256;x-amz-date;x-amz-storage-class",
			want:   "98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd",
		},
		{
			name: "lifecycle", method: "GET", url: "https://examplebucket.s3.amazonaws.com/?lifecycle", keys: example("/"), payload: emptySum,
			header: map[string]string{"X-Amz-Content-Sha256": emptySum, "X-Amz-Date": "20130524T000000Z"},
			auth:   "/20130524/us-east-1/s3/aws4_request, SignedHeaders=host;x-amz-content-sha256;x-amz-date",
			want:   "fea454ca298b7da1c68078a5d1bdbfbbe0d65c699e0f91ac7a200a0136783543",
		},
		{
			name: "list", method: "GET", url: "https://examplebucket.s3.amazonaws.com/?max-keys=2&prefix=J", keys: example("/"), payload: emptySum,
			header: map[string]string{"X-Amz-Content-Sha256": emptySum, "X-Amz-Date": "20130524T000000Z"},
			auth:   "/20130524/us-east-1/s3/aws4_request, SignedHeaders=host;x-amz-content-sha256;x-amz-date",
			want:   "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7",
		},
		{
			name: "iam", method: "GET", url: "https://iam.amazonaws.com/?Action=ListUsers&Version=2010-05-08", keys: keys{"AKIDEXAMPLE", example("+").secret, ""}, payload: emptySum,
			header: map[string]string{"Content-Type": "application/x-www-form-urlencoded; charset=utf-8", "X-Amz-Date": "20150830T123600Z"},
			auth:   "/20150830/us-east-1/iam/aws4_request, SignedHeaders=content-type;host;x-amz-date",
			want:   "5d672d79c15b13162d9279b0855cfba6789a8edb4c82c400e06b5924a6f2b5d7",
		},
		{
			name: "presigned", method: "GET", keys: example("/"), payload: unsigned,
			url:  "https://examplebucket.s3.amazonaws.com/test.txt?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=" + example("/").id + "%2F20130524%2Fus-east-1%2Fs3%2Faws4_request&X-Amz-Date=20130524T000000Z&X-Amz-Expires=86400&X-Amz-SignedHeaders=host&X-Amz-Signature=00",
			want: "aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := request(t, c.method, c.url, c.header, "")
			if c.auth != "" {
				r.Header.Set("Authorization", algHMAC+" Credential="+c.keys.id+c.auth+", Signature=00")
			}
			sig, err := parse(r)
			if err != nil {
				t.Fatal(err)
			}
			if err := resign(r, sig, c.keys, c.payload, nil); err != nil {
				t.Fatal(err)
			}
			got, err := parse(r)
			if err != nil || got.value != c.want {
				t.Fatalf("%v, %v; want %s", got, err, c.want)
			}
		})
	}
}

// The example of "Transferring payload in multiple chunks".
func TestDocumentedChunks(t *testing.T) {
	data := strings.Repeat("a", 65536+1024)
	r := request(t, "PUT", "https://s3.amazonaws.com/examplebucket/chunkObject.txt", map[string]string{
		"X-Amz-Date": "20130524T000000Z", "X-Amz-Storage-Class": "REDUCED_REDUNDANCY", "X-Amz-Content-Sha256": streamSigned, "Content-Encoding": "aws-chunked", "X-Amz-Decoded-Content-Length": "66560",
	}, "")
	r.ContentLength = 66824
	r.Header.Set("Authorization", algHMAC+" Credential="+example("/").id+"/20130524/us-east-1/s3/aws4_request, SignedHeaders=content-encoding;content-length;host;x-amz-content-sha256;x-amz-date;x-amz-decoded-content-length;x-amz-storage-class, Signature=00")
	sig, err := parse(r)
	if err != nil {
		t.Fatal(err)
	}
	if err := resign(r, sig, example("/"), streamSigned, nil); err != nil {
		t.Fatal(err)
	}
	seed, err := parse(r)
	if err != nil || seed.value != "4f232c4386841ef735655705268965c44a0e4690baa4adea153f7db9fa80a0a9" {
		t.Fatalf("%v, %v", seed, err)
	}
	by, err := seed.signer(example("/"))
	if err != nil {
		t.Fatal(err)
	}
	want := "10000;chunk-signature=ad80c730a21e5b8d04586a2213dd63b9a0e99e0e2307b0ade35a65485a288648\r\n" + data[:65536] + "\r\n" +
		"400;chunk-signature=0055627c9e194cb4542bae2aa5492e3c1575bbb81b612b7d234b86a503ef5497\r\n" + data[65536:] + "\r\n" +
		"0;chunk-signature=b6c6ea8a5354eaf15b3cb7646744f4275b71ea724fed81ceb9323e279d449df9\r\n\r\n"
	if len(want) != 66824 {
		t.Fatal(len(want))
	}
	found := &frames{}
	d := newDechunker(io.NopCloser(strings.NewReader(want)), streaming{signed: true}, newChain(by, seed, seed.value), int64(len(data)), nil, found)
	again := &rechunker{src: d, kind: streaming{signed: true}, chain: newChain(by, seed, seed.value), found: found}
	got, err := io.ReadAll(again)
	if err != nil || string(got) != want {
		t.Fatalf("%d bytes, %v", len(got), err)
	}
}

// The key pair that the AWS SDKs' tests of Signature Version 4A derive.
func TestDocumentedECDSAKey(t *testing.T) {
	k, err := asymmetric(keys{id: "AKIS" + "ORANDOM" + "AASORANDOM", secret: "q+jcrXGc+0zWN6uzc" + "lKVhvMmUsIfRPa4rlRandom"})
	if err != nil {
		t.Fatal(err)
	}
	b, err := k.PublicKey.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	const want = "04" + "15d242ceebf8d8169fd6a8b5a746c41140414c3b07579038da06af89190fffcb" + "0515242cedd82e94799482e4c0514b505afccf2c0c98d6a553bf539f424c5ec0"
	if got := hex.EncodeToString(b); got != want {
		t.Fatal(got)
	}
}

// chunked puts data into chunks of size, as a client does.
func chunked(t testing.TB, data []byte, size int, kind streaming, c *chain, trailer string) []byte {
	t.Helper()
	found := &frames{}
	for left := len(data); left > 0; left -= size {
		found.push(int64(min(left, size)))
	}
	found.end([]byte(trailer))
	b, err := io.ReadAll(&rechunker{src: io.NopCloser(bytes.NewReader(data)), kind: kind, chain: c, found: found})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// Every sort of body in chunks, read at every size of reads, comes out as it went in.
func TestChunksRoundTrip(t *testing.T) {
	data := bytes.Repeat([]byte("0123456789abcdef"), 400)
	for name, kind := range map[string]streaming{"signed": {signed: true}, "signed with a trailer": {signed: true, trailer: true}, "unsigned": {trailer: true}, "4A": {signed: true, ecdsa: true}, "4A with a trailer": {signed: true, trailer: true, ecdsa: true}} {
		for _, n := range []int{0, 1, 7, 4096, len(data)} {
			alg := algHMAC
			if kind.ecdsa {
				alg = algECDSA
			}
			sig := &signature{alg: alg, date: time.Now().UTC(), scope: "20260101/us-east-1/s3/aws4_request", region: "us-east-1", service: "s3"}
			by, err := sig.signer(example("/"))
			if err != nil {
				t.Fatal(err)
			}
			newest := func() *chain {
				if !kind.signed {
					return nil
				}
				return newChain(by, sig, "00")
			}
			var names []string
			trailer := ""
			if kind.trailer {
				names, trailer = []string{"x-amz-checksum-crc32"}, "x-amz-checksum-crc32:AAAAAA==\n"
			}
			in := chunked(t, data[:n], 1000, kind, newest(), trailer)
			for _, step := range []int{1, 3, 999, 1 << 16} {
				found := &frames{}
				d := newDechunker(io.NopCloser(bytes.NewReader(in)), kind, newest(), int64(n), names, found)
				again := &rechunker{src: struct {
					io.Reader
					io.Closer
				}{&steps{d, step}, d}, kind: kind, chain: newest(), found: found, want: int64(n)}
				out, err := io.ReadAll(&steps{again, step})
				if err != nil || len(out) != len(in) || !kind.ecdsa && !bytes.Equal(out, in) {
					t.Fatalf("%s, %d bytes in steps of %d: %d bytes of %d, %v", name, n, step, len(out), len(in), err)
				}
				d = newDechunker(io.NopCloser(bytes.NewReader(out)), kind, newest(), int64(n), names, &frames{})
				if back, err := io.ReadAll(d); err != nil || !bytes.Equal(back, data[:n]) {
					t.Fatalf("%s, %d bytes in steps of %d: %v", name, n, step, err)
				}
			}
		}
	}
}

type steps struct {
	io.Reader
	n int
}

func (s *steps) Read(p []byte) (int, error) { return s.Reader.Read(p[:min(len(p), s.n)]) }

// What is not framed or signed exactly as documented ends with an error, and never
// with a whole body.
func TestChunksAttacked(t *testing.T) {
	data := bytes.Repeat([]byte("x"), 3000)
	sig := &signature{alg: algHMAC, date: time.Now().UTC(), scope: "20260101/us-east-1/s3/aws4_request", region: "us-east-1", service: "s3"}
	by, err := sig.signer(example("/"))
	if err != nil {
		t.Fatal(err)
	}
	signed := func(seed string) string {
		return string(chunked(t, data, 1000, streaming{signed: true}, newChain(by, sig, seed), ""))
	}
	good := signed("00")
	heads := strings.SplitAfter(good, "\r\n") // head, data, head, data, ...
	trailing := string(chunked(t, data, 1000, streaming{signed: true, trailer: true}, newChain(by, sig, "00"), "x-amz-checksum-crc32:AAAAAA==\n"))
	plain := string(chunked(t, data, 1000, streaming{trailer: true}, nil, "x-amz-checksum-crc32:AAAAAA==\n"))
	one, two := streaming{signed: true}, streaming{trailer: true}
	three := streaming{signed: true, trailer: true}
	names := []string{"x-amz-checksum-crc32"}
	for _, c := range []struct {
		name, body string
		kind       streaming
		names      []string
		want       int64
	}{
		{"bytes after the end", good + "x", one, nil, 3000},
		{"a second request after the end", good + "GET / HTTP/1.1\r\n\r\n", one, nil, 3000},
		{"cut before the last chunk", good[:strings.LastIndex(good, "0;chunk")], one, nil, 3000},
		{"cut in a chunk", good[:1500], one, nil, 3000},
		{"chunks of another request", signed("11"), one, nil, 3000},
		{"a chunk twice", heads[0] + heads[1] + heads[0] + heads[1] + strings.Join(heads[4:], ""), one, nil, 3000},
		{"chunks in another order", heads[2] + heads[3] + heads[0] + heads[1] + strings.Join(heads[4:], ""), one, nil, 3000},
		{"a chunk left out", heads[0] + heads[1] + strings.Join(heads[4:], ""), one, nil, 2000},
		{"a byte changed", strings.Replace(good, "xxxx", "xxyx", 1), one, nil, 3000},
		{"signature stripped", strings.Replace(good, heads[0], "3e8\r\n", 1), one, nil, 3000},
		{"signature empty", strings.Replace(good, heads[0], "3e8;chunk-signature=\r\n", 1), one, nil, 3000},
		{"a size with a sign", "+" + good, one, nil, 3000},
		{"a size with 0x", "0x" + good, one, nil, 3000},
		{"a size with a blank", " " + good, one, nil, 3000},
		{"a line feed alone", strings.Replace(good, "\r\n", "\n", 1), one, nil, 3000},
		{"another extension", strings.Replace(good, ";chunk", ";a=b;chunk", 1), one, nil, 3000},
		{"a huge size", "ffffffffffffffff;chunk-signature=00\r\n", one, nil, 3000},
		{"a chunk that would not be held", "2000000;chunk-signature=00\r\n", one, nil, 1 << 30},
		{"more than was announced", good, one, nil, 2999},
		{"less than was announced", good, one, nil, 3001},
		{"a head without an end", strings.Repeat("1", 5000), one, nil, 3000},
		{"a trailer nobody announced", strings.TrimSuffix(good, "\r\n") + "x-amz-acl:public-read\r\n\r\n", one, nil, 3000},
		{"unsigned: bytes after the end", plain + "0\r\n\r\n", two, names, 3000},
		{"unsigned: another trailer", strings.Replace(plain, "crc32", "sha256", 1), two, names, 3000},
		{"unsigned: no trailer", plain[:strings.Index(plain, "0\r\nx-amz")] + "0\r\n\r\n", two, names, 3000},
		{"unsigned: trailer twice", strings.Replace(plain, "x-amz-checksum-crc32:AAAAAA==\r\n", "x-amz-checksum-crc32:AAAAAA==\r\nx-amz-checksum-crc32:AAAAAA==\r\n", 1), two, names, 3000},
		{"unsigned: an extension", strings.Replace(plain, "3e8\r\n", "3e8;x=y\r\n", 1), two, names, 3000},
		{"trailer changed", strings.Replace(trailing, "AAAAAA==", "AAAAAB==", 1), three, names, 3000},
		{"trailer without a signature", trailing[:strings.Index(trailing, "x-amz-trailer-signature")] + "\r\n", three, names, 3000},
		{"a line after the trailer's signature", strings.TrimSuffix(trailing, "\r\n") + "x-amz-checksum-crc32:AAAAAA==\r\n\r\n", three, names, 3000},
	} {
		var first, again *chain
		if c.kind.signed {
			first, again = newChain(by, sig, "00"), newChain(by, sig, "00")
		}
		found := &frames{}
		d := newDechunker(io.NopCloser(strings.NewReader(c.body)), c.kind, first, c.want, c.names, found)
		got, err := io.ReadAll(&rechunker{src: d, kind: c.kind, chain: again, found: found, want: c.want})
		if c.want == 3000 && bytes.Count(got, []byte("x")) >= 3000 {
			t.Errorf("%s: all of the data went on", c.name)
		}
		if err == nil || strings.HasSuffix(string(got), "\r\n0") || bytes.Contains(got, []byte("\r\n0;chunk")) {
			t.Errorf("%s: %v, %d bytes", c.name, err, len(got))
		}
	}
	for name, body := range map[string]struct {
		body  string
		kind  streaming
		names []string
	}{"signed": {good, one, nil}, "trailer": {trailing, three, names}, "unsigned": {plain, two, names}} {
		var chain *chain
		if body.kind.signed {
			chain = newChain(by, sig, "00")
		}
		d := newDechunker(io.NopCloser(strings.NewReader(body.body)), body.kind, chain, 3000, body.names, &frames{})
		if _, err := io.ReadAll(d); err != nil {
			t.Errorf("%s, as it should be: %v", name, err)
		}
	}
}

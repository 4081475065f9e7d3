package aws

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/xml"
	"fmt"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"net"
	nethttp "net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"guard/internal/testutil"
)

// s3 is versitygw (internal/setup/s3.sh), and a signer before it.
type s3 struct {
	addr   string
	signer *Signer
	agent  agent
	client *nethttp.Client
}

func startS3(t testing.TB) *s3 {
	t.Helper()
	path := os.Getenv("GUARD_TEST_S3")
	if path == "" {
		path = filepath.Join("..", "..", ".cache", "versitygw")
	}
	path, err := filepath.Abs(path)
	check(t, err)
	if _, err := os.Stat(path); err != nil {
		if os.Getenv("GUARD_TEST_ALL") != "" {
			t.Fatal("there is no S3 server in .cache/versitygw: sh internal/setup/s3.sh builds it")
		}
		t.Skip("there is no S3 server in .cache/versitygw: internal/setup/s3.sh could not build one")
	}
	data, side := t.TempDir(), t.TempDir()
	s := &s3{addr: net.JoinHostPort("127.0.0.1", strconv.Itoa(testutil.FreePort(t))), agent: newAgent()}
	cmd := exec.Command(path, "--quiet", "--port", s.addr, "posix", "--sidecar", side, data)
	cmd.Env = append(os.Environ(), "ROOT_ACCESS_KEY_ID="+realID, "ROOT_SECRET_ACCESS_KEY="+realSecret())
	var log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &log, &log
	check(t, cmd.Start())
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	s.client = &nethttp.Client{Transport: &nethttp.Transport{DialContext: (&net.Dialer{}).DialContext}}
	t.Cleanup(s.client.CloseIdleConnections)
	testutil.WaitFor(t, "the S3 server answers", func() bool {
		res, err := s.client.Get("http://" + s.addr + "/")
		if err != nil {
			return false
		}
		return res.Body.Close() == nil
	})
	s.signer = newSigner()
	s.signer.Now = time.Now
	return s
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// send has r, which the agent signs for payload, signed anew and answered. frame, if set, makes
// the body in chunks.
func (s *s3) send(t testing.TB, r *nethttp.Request, payload string, frame func(sig *signature) []byte) *nethttp.Response {
	t.Helper()
	a := s.agent
	a.at = time.Now().UTC().Truncate(time.Second)
	sig := a.sign(t, r, payload)
	if frame != nil {
		b := frame(sig)
		r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(b)), int64(len(b))
	}
	g := s.signer.Sign(wrap(r))
	if g == nil || g.Refused != nil {
		t.Fatalf("%s %s: %+v", r.Method, r.URL, g)
	}
	out := r.Clone(r.Context())
	if out.Body == nil {
		out.Body = nethttp.NoBody
	}
	check(t, g.Apply(out, realSecret()))
	out.URL.Scheme, out.URL.Host, out.Host = "http", s.addr, r.Host
	out.RequestURI = ""
	res, err := s.client.Do(out)
	check(t, err)
	return res
}

// ok reads a good answer.
func ok(t testing.TB, what string, res *nethttp.Response) []byte {
	t.Helper()
	b, err := io.ReadAll(res.Body)
	check(t, err)
	check(t, res.Body.Close())
	if res.StatusCode/100 != 2 {
		t.Fatalf("%s: %s\n%s", what, res.Status, b)
	}
	return b
}

// TestMultipart: 104 MiB in 13 parts, which are signed in each way that clients do it, arrive at a
// real S3 server, which checks every signature and sum, and come back as they were.
func TestMultipart(t *testing.T) {
	s := startS3(t)
	amz := func(payload string) map[string]string { return map[string]string{"X-Amz-Content-Sha256": payload} }
	do := func(method, url string, body []byte) []byte {
		sum := sha256.Sum256(body)
		payload := hex.EncodeToString(sum[:])
		return ok(t, method+" "+url, s.send(t, request(t, method, url, amz(payload), string(body)), payload, nil))
	}
	const object = "https://s3.test/mine/big"
	do("PUT", "https://s3.test/mine", nil)
	var begun struct{ UploadId string }
	check(t, xml.Unmarshal(do("POST", object+"?uploads=", nil), &begun))
	const parts, size = 13, 8 << 20
	random := rand.NewChaCha8([32]byte{1})
	whole := sha256.New()
	var list bytes.Buffer
	for n := 1; n <= parts; n++ {
		data := make([]byte, size)
		_, _ = random.Read(data)
		whole.Write(data)
		url := fmt.Sprintf("%s?partNumber=%d&uploadId=%s", object, n, begun.UploadId)
		sum := sha256.Sum256(data)
		payload := []string{hex.EncodeToString(sum[:]), unsigned, streamSigned, streamUnsigned, streamSignedTrailer}[n%5]
		header := amz(payload)
		kind, stream := streamingOf(payload)
		trailer := ""
		if stream {
			header["X-Amz-Decoded-Content-Length"], header["Content-Encoding"] = strconv.Itoa(size), "aws-chunked"
		}
		if kind.trailer {
			crc := binary.BigEndian.AppendUint32(nil, crc32.ChecksumIEEE(data))
			trailer = "x-amz-checksum-crc32:" + base64.StdEncoding.EncodeToString(crc) + "\n"
			header["X-Amz-Trailer"] = "x-amz-checksum-crc32"
		}
		var frame func(*signature) []byte
		body := string(data)
		if stream {
			body = ""
			frame = func(sig *signature) []byte {
				by, err := sig.signer(s.agent.keys)
				check(t, err)
				var c *chain
				if kind.signed {
					c = newChain(by, sig, sig.value)
				}
				return chunked(t, data, 64<<10, kind, c, trailer)
			}
		}
		res := s.send(t, request(t, "PUT", url, header, body), payload, frame)
		ok(t, payload, res)
		fmt.Fprintf(&list, "<Part><PartNumber>%d</PartNumber><ETag>%s</ETag></Part>", n, res.Header.Get("ETag"))
	}
	do("POST", object+"?uploadId="+begun.UploadId, []byte("<CompleteMultipartUpload>"+list.String()+"</CompleteMultipartUpload>"))
	res := s.send(t, request(t, "GET", object, amz(emptySum), ""), emptySum, nil)
	back := sha256.New()
	n, err := io.Copy(back, res.Body)
	check(t, err)
	check(t, res.Body.Close())
	if n != parts*size || !bytes.Equal(back.Sum(nil), whole.Sum(nil)) {
		t.Fatalf("%s: %d bytes came back, want %d, or others", res.Status, n, parts*size)
	}
	// The server takes nothing with the placeholder: it is guard that signs.
	r := request(t, "GET", object, amz(emptySum), "")
	a := s.agent
	a.at = time.Now().UTC().Truncate(time.Second)
	a.sign(t, r, emptySum)
	r.URL.Scheme, r.URL.Host = "http", s.addr
	r.RequestURI = ""
	res, err = s.client.Do(r)
	check(t, err)
	b, err := io.ReadAll(res.Body)
	check(t, err)
	check(t, res.Body.Close())
	if res.StatusCode/100 == 2 || !bytes.Contains(b, []byte("<Error>")) {
		t.Errorf("with the placeholder: %s\n%s", res.Status, b)
	}
}

//go:build linux

package main

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// drive is a client that does what it is told, a line each, and answers with a
// line: how long it took, the median request, and the 99th percentile.
//
//	load CONNECTIONS VERSION REQUESTS USE    small requests; USE 1: with a credential
//	download BYTES, upload BYTES
//	idle CONNECTIONS                         kept until the end
func drive(addr string, in io.Reader, out io.Writer) error {
	pem, err := os.ReadFile(os.Getenv("SSL_CERT_FILE"))
	if err != nil {
		return err
	}
	d := &driver{addr: addr, pool: x509.NewCertPool()}
	d.pool.AppendCertsFromPEM(pem)
	lines := bufio.NewScanner(in)
	for lines.Scan() {
		what, rest, _ := strings.Cut(lines.Text(), " ")
		var a [4]int64
		n, _ := fmt.Sscan(rest, &a[0], &a[1], &a[2], &a[3])
		var times []time.Duration
		began := time.Now()
		switch {
		case what == "load" && n == 4:
			times, err = d.load(a[0], int(a[1]), a[2], a[3] == 1)
		case what == "download" && n == 1:
			_, err = get(d.client(1), fmt.Sprint("https://", benchHost, "/?n=", a[0]), a[0], "")
		case what == "upload" && n == 1:
			err = d.upload(a[0])
		case what == "idle" && n == 1:
			err = d.idle(a[0])
		default:
			err = errors.New("what is " + lines.Text())
		}
		if err != nil {
			return err
		}
		took := time.Since(began)
		p50, p99 := took, took
		if n := len(times); n > 0 {
			slices.Sort(times)
			p50, p99 = times[n/2], times[n*99/100]
		}
		// Numbers alone may be the beginning of a value in some encoding, for which guard
		// would wait.
		fmt.Fprintf(out, "%v %v %v, and that is all.\n", took, p50, p99)
	}
	return lines.Err()
}

type driver struct {
	addr string
	pool *x509.CertPool
	kept map[[2]int64][]*http.Client // of loads, by connections and version
	idly []*http.Client
}

// client is one that has a connection of its own.
func (d *driver) client(version int) *http.Client {
	tr := &http.Transport{DisableCompression: true, TLSClientConfig: &tls.Config{RootCAs: d.pool}, ForceAttemptHTTP2: version == 2}
	if d.addr != "-" {
		tr.DialContext = dialTo(d.addr)
	}
	return &http.Client{Transport: tr}
}

// get asks for n bytes.
func get(c *http.Client, u string, n int64, token string) (time.Duration, error) {
	r, err := http.NewRequest("GET", u, nil)
	if err != nil {
		return 0, err
	}
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	began := time.Now()
	resp, err := c.Do(r)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	got, err := io.Copy(io.Discard, resp.Body)
	switch {
	case err == nil && resp.StatusCode != http.StatusOK:
		err = errors.New("status " + resp.Status)
	case err == nil && got != n:
		err = fmt.Errorf("%d bytes instead of %d", got, n)
	}
	return time.Since(began), err
}

// load makes n requests over conns connections, which are kept for the next load.
func (d *driver) load(conns int64, version int, n int64, use bool) ([]time.Duration, error) {
	key := [2]int64{conns, int64(version)}
	if d.kept[key] == nil {
		if d.kept == nil {
			d.kept = map[[2]int64][]*http.Client{}
		}
		for range conns {
			d.kept[key] = append(d.kept[key], d.client(version))
		}
	}
	token := ""
	if use {
		if token = os.Getenv("BENCH_TOKEN_0"); token == "" {
			token = "bench_0123456789012345678901234567890123"
		}
	}
	const size = 100
	u := fmt.Sprint("https://", benchHost, "/?n=", size)
	var (
		wg     sync.WaitGroup
		left   atomic.Int64
		failed atomic.Pointer[error]
		times  = make([]time.Duration, n)
	)
	left.Store(n)
	for _, c := range d.kept[key] {
		wg.Go(func() {
			for {
				i := left.Add(-1)
				if i < 0 {
					return
				}
				took, err := get(c, u, size, token)
				if err != nil {
					failed.Store(&err)
					return
				}
				times[i] = took
			}
		})
	}
	wg.Wait()
	if err := failed.Load(); err != nil {
		return nil, *err
	}
	return times, nil
}

func (d *driver) upload(n int64) error {
	r, err := http.NewRequest("POST", "https://"+benchHost+"/", io.LimitReader(text{}, n))
	if err != nil {
		return err
	}
	r.ContentLength = n
	r.Header.Set("Content-Type", "text/plain")
	resp, err := d.client(1).Do(r)
	if err != nil {
		return err
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return errors.New("status " + resp.Status)
	}
	return nil
}

func (d *driver) idle(n int64) error {
	for range n {
		c := d.client(1)
		if _, err := get(c, "https://"+benchHost+"/?n=1", 1, ""); err != nil {
			return err
		}
		d.idly = append(d.idly, c)
	}
	return nil
}

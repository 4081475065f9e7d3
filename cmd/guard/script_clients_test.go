//go:build linux

package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/net/websocket"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	grpcstatus "google.golang.org/grpc/status"

	"guard/internal/testutil"
)

// clientServer is a server for all sorts of clients: what it gives needs its token.
type clientServer struct {
	token string
	mu    sync.Mutex
	wrong []string // requests without it
	right int
}

func (c *clientServer) allowed(what, auth string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if auth != "Bearer "+c.token {
		c.wrong = append(c.wrong, what)
		return false
	}
	c.right++
	return true
}

// ServeHTTP: /echo answers "ok METHOD PROTOCOL BYTES" and the token back, /events
// sends three events, each after the client could have had the last one, /ws
// answers each message.
func (c *clientServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !c.allowed(r.Method+" "+r.URL.Path, r.Header.Get("Authorization")) {
		http.Error(w, "a bearer token is needed", http.StatusUnauthorized)
		return
	}
	switch r.URL.Path {
	case "/events":
		w.Header().Set("Content-Type", "text/event-stream")
		for i := range 3 {
			fmt.Fprintf(w, "id: %d\ndata: event %d\n\n", i, i)
			w.(http.Flusher).Flush()
		}
		<-r.Context().Done() // the client has to be given them while the stream is open
	case "/ws":
		websocket.Server{Handler: func(ws *websocket.Conn) { io.Copy(ws, ws) }}.ServeHTTP(w, r)
	default:
		n, err := io.Copy(io.Discard, r.Body)
		if err != nil {
			return
		}
		fmt.Fprintf(w, "ok %s %s %d\n", r.Method, r.Proto, n)
	}
}

// clientserver NAME VAR: a server at host NAME for scripts with clients, and a gRPC
// server, that take the token in $VAR. $CLIENT_PORT and $GRPC_PORT are their ports.
func cmdClientServer(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, args, 2, "clientserver NAME VAR")
	s := stateOf(ts)
	s.clients = &clientServer{token: ts.Getenv(args[1])}
	ca := authority(ts, s)
	ts.Setenv("CLIENT_PORT", portOf(testutil.HTTPSServer(s.t.T, ca, s.clients, args[0]).URL))

	cert := ca.Server(s.t.T, args[0])
	check := func(ctx context.Context, method string) error {
		md, _ := metadata.FromIncomingContext(ctx)
		if !s.clients.allowed(method, strings.Join(md.Get("authorization"), ",")) {
			return grpcstatus.Error(codes.Unauthenticated, "a bearer token is needed")
		}
		return nil
	}
	srv := grpc.NewServer(grpc.Creds(credentials.NewServerTLSFromCert(&cert)),
		grpc.UnaryInterceptor(func(ctx context.Context, req any, info *grpc.UnaryServerInfo, h grpc.UnaryHandler) (any, error) {
			if err := check(ctx, info.FullMethod); err != nil {
				return nil, err
			}
			return h(ctx, req)
		}),
		grpc.StreamInterceptor(func(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, h grpc.StreamHandler) error {
			if err := check(ss.Context(), info.FullMethod); err != nil {
				return err
			}
			return h(srv, ss)
		}))
	healthpb.RegisterHealthServer(srv, health.NewServer())
	l, err := net.Listen("tcp", "127.0.0.1:0")
	ts.Check(err)
	served := make(chan struct{})
	go func() { defer close(served); _ = srv.Serve(l) }()
	s.t.Cleanup(func() { srv.Stop(); <-served })
	_, port, _ := net.SplitHostPort(l.Addr().String())
	ts.Setenv("GRPC_PORT", port)
}

// clientsaw N: N requests with the token came since the last time that was asked,
// and none without.
func cmdClientSaw(ts *testscript.TestScript, neg bool, args []string) {
	need(ts, args, 1, "clientsaw N")
	c := stateOf(ts).clients
	c.mu.Lock()
	defer c.mu.Unlock()
	if fmt.Sprint(c.right) != args[0] || len(c.wrong) > 0 {
		ts.Fatalf("%d requests had the token, %v had not", c.right, c.wrong)
	}
	c.right = 0
}

// clientPackages is where internal/setup/clients.sh puts the npm packages of
// scripts with clients; "" where it could not get them.
func clientPackages() string {
	dir, err := filepath.Abs("../../.cache/clients")
	if err != nil {
		return ""
	}
	if env := os.Getenv("GUARD_TEST_CLIENTS"); env != "" {
		dir = env
	}
	for _, p := range []string{"undici", "axios", "ws", "eventsource", "ioredis", "redis", "oidc-provider"} {
		if _, err := os.ReadFile(filepath.Join(dir, "node_modules", p, "package.json")); err != nil {
			return ""
		}
	}
	return dir
}

// grpcClientProgram is a client of grpc-go: one call, and a stream. It knows the
// token by the variable that a session sets.
func grpcClientProgram() {
	err := func() error {
		b, err := os.ReadFile(os.Getenv("SSL_CERT_FILE"))
		if err != nil {
			return err
		}
		pool := x509.NewCertPool()
		for block, rest := pem.Decode(b); block != nil; block, rest = pem.Decode(rest) {
			if c, err := x509.ParseCertificate(block.Bytes); err == nil {
				pool.AddCert(c)
			}
		}
		c, err := grpc.NewClient(os.Args[1], grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{RootCAs: pool})))
		if err != nil {
			return err
		}
		defer c.Close()
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		ctx = metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+os.Getenv("TOKEN"))
		h := healthpb.NewHealthClient(c)
		r, err := h.Check(ctx, &healthpb.HealthCheckRequest{})
		if err != nil {
			return err
		}
		fmt.Println("unary", r.Status)
		w, err := h.Watch(ctx, &healthpb.HealthCheckRequest{})
		if err != nil {
			return err
		}
		r, err = w.Recv()
		if err != nil {
			return err
		}
		fmt.Println("stream", r.Status)
		_, err = h.Check(ctx, &healthpb.HealthCheckRequest{Service: "nobody"})
		if grpcstatus.Code(err) != codes.NotFound {
			return errors.Join(errors.New("a service that is not there"), err)
		}
		fmt.Println("status", grpcstatus.Code(err))
		return nil
	}()
	if err != nil {
		fmt.Fprintln(os.Stderr, "grpcclient:", err)
		os.Exit(1)
	}
}

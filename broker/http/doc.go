// Package http is the broker for HTTP/1.1, HTTP/2, WebSocket, server-sent
// events, gRPC and git over HTTP. It ends TLS with a certificate authority of
// the session, swaps placeholders for values in the positions where they are
// allowed, on the credential's own hosts, by way of the use line, and shows
// every byte of every request to the leak line before it goes on.
//
// A request goes through exchange.serve from top to bottom:
//
//	who is asked (transparent or proxy) -> Host equals the destination -> egress
//	  -> head inspected -> placeholders found -> body inspected (streamed, or
//	  spooled where it has to be unpacked) -> use line -> upstream -> reply scrubbed
//
// What it does not see through: messages that gRPC compresses by itself, archives
// and images, base64 at a place that the leak line does not decode, and deltas of
// a thin git pack beyond what they add (a pushing git is asked for whole packs). A
// secret that is split over several WebSocket frames is stopped by the frame that
// completes it. A secret in a host name is stopped before the name is resolved.
//
// Values are held by net/http in header strings while a request is sent; Go
// cannot wipe those. What the audit calls wiped is the copy that the vault gave.
//
// Goroutines: Proxy.Serve runs the server and waits for every connection and
// request; a body that may have to be paused reads ahead in one goroutine that
// ends with the body.
package http

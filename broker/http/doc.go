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
// A model's API (Config.Models and the three well-known ones) is told text, so what
// goes there is read as text: model.go takes a JSON body of up to 32 MiB whole, and
// shows the leak line its strings decoded, one after the other, and what is in
// base64; model_reply.go does the same with replies, joining what the events of a
// stream bring in pieces, and lets each event go as soon as it cannot hold a part of
// a value. Masks leave JSON that parses (model_json.go, model_stream.go). Not joined:
// the halves of a value in two uploads, in texts that something else is between, or
// in messages that a real-time API sends over a WebSocket.
//
// What it does not see through: messages that gRPC compresses by itself, archives
// and images, and base64 at a place that the leak line does not decode. A secret in
// a host name is stopped before the name is resolved. A thin git pack is refused (a
// pushing git is asked for a whole one), and so is a method that is not registered
// and not a short word in capitals. The names of headers are compared in lower
// case, since their own case is lost: a name of over 64 bytes, or with a word of 20
// letters and digits, is refused; a value of letters alone, in capital and small
// ones, could still go out as a name.
//
// A push is taken whole, up to 4 GiB, and its pack is read twice: once for the names and
// paths of its objects, once to judge each of them, as it is when its deltas are applied.
// A value that is cut over two objects is not found, nor one whose parts are folders
// that the pack's trees list under another name first.
//
// A body, an upgraded connection and the payload of all data frames of a WebSocket
// are one stream each, however slowly they come: the leak line keeps what may be a
// value's first 8 bytes or more, and what follows on the wire waits behind it until
// it is clear. So a message that ends in such a start waits for the next one, or
// the end. The payload of control frames is a stream of which nothing is kept: one
// that would have to wait ends the connection. Behind the leak line, placeholders of
// credentials whose position is a frame are swapped, where the value is as long; a
// server's frames are scrubbed as one stream too, so that no cut hides a value.
//
// Replies are scrubbed of the values of all credentials that may be sent to their
// host, at any port, sent or not, and of what the host got in this session. Ranges
// are not asked for there and partial replies refused, and a reply that ends in a
// value's first 8 bytes or more has them masked. A server that means to could still
// cut or code a value as nothing here reads.
//
// Requests that give out credentials are found by what they ask (grant_type in a
// form, JSON or the query; the table in issuers.txt), and those that only may be
// by the reply: a path that ends in a token's name, or a small JSON reply with an
// access_token. Of the first sort the reply is read whole, and withheld if it
// cannot be. What it gives out goes to Issuing.Store, and placeholders into its
// place; tokens in a redirect (the implicit flow) too. What does not hold: tokens
// in a page's hidden fields (form_post), in a reply without Content-Length to a
// request that says nothing of a login, and at a WebSocket.
//
// Values are held by net/http in header strings while a request is sent; Go
// cannot wipe those. What the audit calls wiped is the copy that the vault gave.
//
// Goroutines: Proxy.Serve runs the server and waits for every connection and
// request, and for the records of what came of uses; a body that may have to be paused reads ahead in one goroutine that
// ends with the body.
package http

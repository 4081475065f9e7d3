// Package aws signs for an agent that holds placeholders: AWS Signature Version 4
// and 4A, and the tokens of Google Cloud service accounts. It is Config.Sign of
// broker/http.
//
// The agent's client signs with a placeholder key pair. Signer.Sign verifies that
// signature as AWS would (canonical request, signed headers, date, scope), and its
// Apply signs what goes out anew with the real key, at the last write:
//
//	head -> signature of the placeholder verified -> action and resource -> policy
//	  -> body: chunk signatures verified, data through the leak line, chunks signed again
//	  -> head signed again -> upstream
//
// Refused, in the shape that clients of AWS read (deny.go): no signature, another
// key's, one that does not verify, two at once, Signature Version 2, a date that is
// more than 15 minutes off, an x-amz-* header or host that is not signed, framing of
// chunks that is not exactly as documented. A request whose service has no
// x-amz-content-sha256 is taken whole first (up to 128 MiB, in an unlinked file past
// 1 MiB), since its signature is of its body.
//
// The body of an upload in signed chunks (STREAMING-AWS4-HMAC-SHA256-PAYLOAD and its
// relatives) is held one chunk at a time, of 16 MiB at most; without chunk signatures
// nothing is held. Chunks keep their sizes, and signatures have one length, so
// Content-Length stays.
//
// Actions (action.go): s3:get, s3:list, s3:put, s3:delete of what is in a bucket, with
// BUCKET/KEY as the resource; aws:use with SERVICE/Operation of everything else, also
// of what changes a bucket (s3/PutBucketPolicy); token:mint of what gives out
// credentials.
//
// A presigned URL is a signature by the placeholder: it works from inside, where it is
// signed again, and nowhere else.
//
// With a session (Session in session.go), requests are not signed with the stored key but with
// one that STS gave guard for it, with a policy made of the scopes (sts.go).
//
// Sources: "Signature Version 4 signing process" and "Signature calculations for the
// Authorization header: transferring payload in multiple chunks" (AWS documentation);
// SigV4A as the AWS Common Runtime (aws-c-auth, key_derivation.c) documents it; RFC 7523.
//
// Goroutines: none.
package aws

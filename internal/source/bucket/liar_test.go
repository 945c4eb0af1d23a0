package bucket_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/bowline-dev/bowline/internal/failure"
	"github.com/bowline-dev/bowline/internal/source/bucket"
)

// A server that lists objects smaller than they are fills no disk: what comes counts, also over several fetches.
func TestS3ListsTooLittle(t *testing.T) {
	t.Parallel()
	const objects = 40
	var reads atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if key := strings.TrimPrefix(r.URL.Path, "/liar/"); key != "" {
			reads.Add(1)
			w.Header().Set("ETag", `"1"`)
			w.Header().Set("Last-Modified", "Mon, 02 Jan 2006 15:04:05 GMT")
			_, _ = fmt.Fprintf(w, "%0100000s", key)
			return
		}
		_, _ = fmt.Fprint(w, "<ListBucketResult><Name>liar</Name>")
		for i := range objects {
			_, _ = fmt.Fprintf(w, "<Contents><Key>f%02d</Key><LastModified>2006-01-02T15:04:05.000Z</LastModified><ETag>1</ETag><Size>1</Size></Contents>", i)
		}
		_, _ = fmt.Fprint(w, "</ListBucketResult>")
	}))
	t.Cleanup(server.Close)
	u, err := url.Parse(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	store := newStore(t, func(o *bucket.Options) { o.MaxBytes = 1 << 20 })
	for range 3 {
		_, err = store.Fetch(t.Context(), bucket.Request{Provider: bucket.Generic, Bucket: "liar", Endpoint: u.Host, Region: "eu-west-1", Insecure: true, For: "me"})
		if !isKind(err, failure.Invalid, "larger than it lists") {
			t.Errorf("error = %v", err)
		}
	}
	if n := reads.Load(); n >= objects {
		t.Errorf("%d objects were downloaded", n)
	}
}

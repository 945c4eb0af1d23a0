package bucket_test

import (
	"encoding/base64"
	"maps"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/bowline-dev/bowline/internal/failure"
	"github.com/bowline-dev/bowline/internal/source/bucket"
	"github.com/bowline-dev/bowline/internal/source/reach"
	"github.com/bowline-dev/bowline/internal/testkit/buckettest"
)

func azureRequest(s *buckettest.AzureServer, change ...func(*bucket.Request)) bucket.Request {
	r := bucket.Request{
		Provider: bucket.Azure, Bucket: s.Bucket, Endpoint: s.Account(), Insecure: true, For: "me", Timeout: 20 * time.Second,
		Login: bucket.Login{Azure: bucket.AzureLogin{AccountKey: buckettest.AzureKey}},
	}
	for _, c := range change {
		c(&r)
	}
	return r
}

// Azurite checks signatures and speaks the whole protocol; the stand-in needs no Node.
func TestAzure(t *testing.T) {
	t.Parallel()
	t.Run("azurite", func(t *testing.T) { t.Parallel(); playAzure(t, buckettest.NewAzurite(t)) })
	t.Run("stand-in", func(t *testing.T) {
		t.Parallel()
		playAzure(t, buckettest.NewAzure(t, func(r *http.Request) bool {
			return strings.HasPrefix(r.Header.Get("Authorization"), "SharedKey "+buckettest.AzureAccount+":")
		}))
	})
}

func playAzure(t *testing.T, s *buckettest.AzureServer) {
	store := newStore(t)
	files := map[string]string{"a.yaml": "1", "app/b.yaml": "2", "app/deep/c.yaml": "3", "d.yaml": "4", "e.yaml": "5"}
	s.Put(files)
	s.Put(map[string]string{".sourceignore": "*.md\n", "a.md": "x", "z/": ""})
	files[".sourceignore"] = "*.md\n"
	first := fetched(t, store, azureRequest(s))
	if got := filesOf(t, first.Tree); !maps.Equal(got, files) {
		t.Errorf("the tree has %v", got)
	}
	downloaded := len(s.Reads())
	s.Put(map[string]string{"app/b.yaml": "new"})
	s.Delete("e.yaml")
	second := fetched(t, store, azureRequest(s, func(r *bucket.Request) { r.Prefix = "app/" }))
	if got := filesOf(t, second.Tree); !maps.Equal(got, map[string]string{".sourceignore": "*.md\n", "app/b.yaml": "new", "app/deep/c.yaml": "3"}) {
		t.Errorf("the tree has %v", got)
	}
	if n := len(s.Reads()) - downloaded; n != 1 || second.Revision == first.Revision {
		t.Errorf("downloaded %v", s.Reads())
	}
	once := true
	s.OnRead(func(key string) {
		if once && key == "d.yaml" { // others are read beside it
			once = false
			s.Put(map[string]string{key: "later"})
		}
	})
	s.Put(map[string]string{"d.yaml": "soon"})
	if got := filesOf(t, fetched(t, store, azureRequest(s)).Tree); got["d.yaml"] != "later" {
		t.Errorf("the tree has %v", got)
	}
	s.OnRead(nil)
	other := base64.StdEncoding.EncodeToString([]byte("other-key"))
	_, err := newStore(t).Fetch(t.Context(), azureRequest(s, func(r *bucket.Request) {
		r.Login.Azure = bucket.AzureLogin{SAS: "?sv=2020-08-04&ss=b&srt=co&sp=rl&sig=" + other}
	}))
	if !isKind(err, failure.Denied, "check the credentials") || strings.Contains(err.Error(), other) {
		t.Errorf("wrong signature: %v", err)
	}
	_, err = store.Fetch(t.Context(), azureRequest(s, func(r *bucket.Request) { r.Bucket = "missing" }))
	if !isKind(err, failure.NotFound, "there is no such bucket") {
		t.Errorf("no container: %v", err)
	}
}

// Who shows what: a signature goes into the query, where it wins over the endpoint's own.
func TestAzureLogins(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name, reason string
		secret       map[string]string
		endpoint     string
		admits       func(*http.Request) bool
	}{
		{"signature", "with or without its question mark", map[string]string{"sasKey": "?sig=a%2Bb&se=later"}, "", func(r *http.Request) bool {
			return r.URL.Query().Get("sig") == "a+b" && r.URL.Query().Get("se") == "later"
		}},
		{"both", "that of the Secret counts", map[string]string{"sasKey": "sig=mine"}, "?sig=theirs&sv=1", func(r *http.Request) bool {
			return r.URL.Query().Get("sig") == "mine" && r.URL.Query().Get("sv") == "1"
		}},
		{"nobody", "a container that everybody may read", nil, "", func(r *http.Request) bool { return r.Header.Get("Authorization") == "" }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			s := buckettest.NewAzure(t, tc.admits)
			s.Put(map[string]string{"a": "1"})
			login := bucket.Login{}
			if tc.secret != nil {
				data := map[string][]byte{}
				for k, v := range tc.secret {
					data[k] = []byte(v)
				}
				var err error
				if login, err = bucket.LoginFromSecret(bucket.Azure, data); err != nil {
					t.Fatal(err)
				}
			}
			a := fetched(t, newStore(t), azureRequest(s, func(r *bucket.Request) { r.Login, r.Endpoint = login, r.Endpoint+tc.endpoint }))
			if filesOf(t, a.Tree)["a"] != "1" {
				t.Errorf("%s: nothing", tc.reason)
			}
		})
	}
}

// A token is shown over TLS, to a server whose authority is known.
func TestAzureToken(t *testing.T) {
	t.Parallel()
	s := buckettest.NewAzure(t, func(r *http.Request) bool { return r.Header.Get("Authorization") == "Bearer azure-token" }, buckettest.TLS())
	s.Put(map[string]string{"a": "1"})
	login := bucket.Login{Token: "azure-token"}
	a := fetched(t, newStore(t), azureRequest(s, func(r *bucket.Request) { r.Login, r.Insecure, r.TLS = login, false, reach.TLS{CA: s.CA()} }))
	if filesOf(t, a.Tree)["a"] != "1" {
		t.Error("nothing")
	}
	_, err := newStore(t).Fetch(t.Context(), azureRequest(s, func(r *bucket.Request) { r.Login, r.Insecure = login, false }))
	if !isKind(err, failure.Denied, "ca.crt", "spec.certSecretRef") {
		t.Errorf("an authority that is not known: %v", err)
	}
}

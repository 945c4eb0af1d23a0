package archive_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/bowline-dev/bowline/internal/failure"
	"github.com/bowline-dev/bowline/internal/source/archive"
)

func entry(name, content string) tar.Header {
	return tar.Header{Name: name, Linkname: content, Mode: 0o644, Typeflag: tar.TypeReg}
}

// pack makes a .tar.gz; the content of a file is in its Linkname.
func pack(t *testing.T, headers ...tar.Header) []byte {
	t.Helper()
	var out bytes.Buffer
	zipped := gzip.NewWriter(&out)
	w := tar.NewWriter(zipped)
	for _, h := range headers {
		content := ""
		if h.Typeflag == tar.TypeReg {
			content, h.Linkname = h.Linkname, ""
			h.Size = int64(len(content))
		}
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, content); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(w.Close(), zipped.Close()); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func TestRead(t *testing.T) {
	run := entry("bin/run", "#!")
	run.Mode = 0o755
	data := pack(t, tar.Header{Name: "./", Typeflag: tar.TypeDir}, entry("./a.yaml", "first"), run, tar.Header{Name: "empty/", Typeflag: tar.TypeDir},
		entry("logo.png", "no ignore rules apply"), entry(".sourceignore", "a.yaml"), entry("a.yaml", "the last of two counts"))
	a, err := archive.Read(bytes.NewReader(data), archive.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	if err := fstest.TestFS(a.Tree, "a.yaml", "bin/run", "empty", "logo.png", ".sourceignore"); err != nil {
		t.Error(err)
	}
	if got, err := a.Tree.ReadFile("a.yaml"); err != nil || string(got) != "the last of two counts" {
		t.Errorf("a.yaml: %q, %v", got, err)
	}
	if info, err := a.Tree.Stat("bin/run"); err != nil || info.Mode()&0o100 == 0 {
		t.Errorf("bin/run: %v, %v: it can be run", info, err)
	}
	again, err := archive.Read(bytes.NewReader(data), archive.Limits{})
	if err != nil || again.Digest != a.Digest || !strings.HasPrefix(a.Digest, "tree:") {
		t.Errorf("digests %s and %s, %v", a.Digest, again.Digest, err)
	}
}

func TestReadRefuses(t *testing.T) {
	limits := archive.Limits{MaxBytes: 1000, MaxFileSize: 500, MaxEntries: 5}
	large := entry("large.yaml", strings.Repeat("x", 501))
	many := make([]tar.Header, 0, 6)
	for _, name := range []string{"1", "2", "3", "4", "5", "6"} {
		many = append(many, entry(name, ""))
	}
	tests := []struct {
		name, reason string
		data         []byte
		word         string
	}{
		{"no gzip", "", []byte("plain"), "gzip"},
		{"no tar", "", zipped(t, strings.Repeat("no tar at all ", 100)), "cannot be read"},
		{"cut short", "half a download is none", pack(t, entry("a", strings.Repeat("x", 400)))[:60], "cannot be read"},
		{"root of the machine", "", pack(t, entry("/etc/passwd", "x")), "/etc/passwd"},
		{"above", "", pack(t, entry("../x", "x")), "outside"},
		{"above in the end", "", pack(t, entry("a/../../x", "x")), "outside"},
		{"up and down", "whoever writes this means no good", pack(t, entry("a/../b", "x")), "outside"},
		{"symbolic link", "it could lead anywhere", pack(t, tar.Header{Name: "l", Linkname: "/etc", Typeflag: tar.TypeSymlink}), `"l"`},
		{"hard link", "", pack(t, tar.Header{Name: "l", Linkname: "a", Typeflag: tar.TypeLink}), "links"},
		{"device", "", pack(t, tar.Header{Name: "d", Typeflag: tar.TypeBlock}), "neither a file nor a folder"},
		{"pipe", "", pack(t, tar.Header{Name: "p", Typeflag: tar.TypeFifo}), "neither a file nor a folder"},
		{"large file", "it would take the memory", pack(t, large), "large.yaml"},
		{"much", "it would take the memory", pack(t, entry("1", strings.Repeat("x", 400)), entry("2", strings.Repeat("x", 400)), entry("3", strings.Repeat("x", 400))), "together"},
		{"many", "it would take the memory", pack(t, many...), "more than 5 entries"},
		{"many folders in one path", "they count as well", pack(t, entry("1/2/3/4/5/6", "x")), "more than 5 entries"},
		{"many folders in paths", "they count together", pack(t, entry("1/2/3", "x"), entry("4/5/6", "x")), "more than 5 entries"},
		{"deep", "each level costs a folder, and the reader a call", pack(t, entry(strings.Repeat("a/", 129)+"b", "x")), "in more than 128 folders"},
		{"large headers", "what is skipped has to be unpacked too", pack(t, global(strings.Repeat("x", 15_000)), global(strings.Repeat("y", 15_000)), entry("a", "x")), "too large"},
		{"bomb after the end", "it would take for ever", zipped(t, string(make([]byte, 1024))+strings.Repeat("x", 10000)), "end"},
		{"file and folder", "", pack(t, entry("a/b", "x"), entry("a", "x")), "a file and a folder"},
		{"folder and file", "", pack(t, entry("a", "x"), entry("a/b", "x")), "a file and a folder"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := archive.Read(bytes.NewReader(tt.data), limits)
			if !errors.Is(err, failure.Of(failure.Invalid)) || !strings.Contains(err.Error(), tt.word) {
				t.Errorf("%s: %v, want it refused for %q", tt.reason, err, tt.word)
			}
		})
	}
}

// global is a header that is about the whole archive, with a comment.
func global(comment string) tar.Header {
	return tar.Header{Name: "global", Typeflag: tar.TypeXGlobalHeader, PAXRecords: map[string]string{"comment": comment}}
}

// Every folder that a path speaks of is made once, whether it has an entry of its own or not.
func TestReadCountsOnce(t *testing.T) {
	data := pack(t, entry("a/b", "x"), tar.Header{Name: "a/", Typeflag: tar.TypeDir}, entry("a/c", "y"), entry("a/b", "z"))
	if _, err := archive.Read(bytes.NewReader(data), archive.Limits{MaxEntries: 4}); err != nil {
		t.Errorf("a folder and two files: %v", err)
	}
}

func zipped(t *testing.T, text string) []byte {
	t.Helper()
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	if _, err := io.WriteString(w, text); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func TestFetch(t *testing.T) {
	data := pack(t, entry("a.yaml", "x"))
	sum256, sum384, sum512 := sha256.Sum256(data), sha512.Sum384(data), sha512.Sum512(data)
	right := "sha256:" + hex.EncodeToString(sum256[:])
	hang := make(chan struct{})
	mux := http.NewServeMux()
	mux.HandleFunc("/a.tar.gz", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(data) })
	mux.HandleFunc("/moved", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/a.tar.gz", http.StatusFound) })
	mux.HandleFunc("/broken", func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "a secret", http.StatusInternalServerError)
	})
	mux.HandleFunc("/hangs", func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-hang:
		case <-r.Context().Done():
		}
	})
	server := httptest.NewServer(mux)
	defer server.Close()
	defer close(hang)
	tests := []struct {
		name, reason, url, digest string
		limits                    archive.Limits
		kind                      failure.Kind
	}{
		{"sha256", "", "/a.tar.gz", right, archive.Limits{}, ""},
		{"sha384", "", "/a.tar.gz", "sha384:" + hex.EncodeToString(sum384[:]), archive.Limits{}, ""},
		{"sha512", "", "/a.tar.gz", "sha512:" + hex.EncodeToString(sum512[:]), archive.Limits{}, ""},
		{"other digest", "it is not what was published", "/a.tar.gz", strings.Replace(right, right[7:9], "zz", 1), archive.Limits{}, failure.Invalid},
		{"other content", "it is not what was published", "/a.tar.gz", "sha256:" + strings.Repeat("0", 64), archive.Limits{}, failure.Unavailable},
		{"short digest", "a part of a digest proves nothing", "/a.tar.gz", right[:20], archive.Limits{}, failure.Invalid},
		{"weak digest", "", "/a.tar.gz", "sha1:" + strings.Repeat("0", 40), archive.Limits{}, failure.Unsupported},
		{"absent", "", "/none", right, archive.Limits{}, failure.NotFound},
		{"redirect", "it could lead to where nobody is meant to look", "/moved", right, archive.Limits{}, failure.Invalid},
		{"server error", "it may pass", "/broken", right, archive.Limits{}, failure.Unavailable},
		{"too large", "", "/a.tar.gz", right, archive.Limits{MaxBytes: 10}, failure.Invalid},
		{"hangs", "nobody waits for ever", "/hangs", right, archive.Limits{}, failure.Timeout},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			defer cancel()
			if tt.kind == failure.Timeout {
				ctx, cancel = context.WithTimeout(t.Context(), 50*time.Millisecond)
				defer cancel()
			}
			a, err := archive.Fetch(ctx, http.DefaultTransport, server.URL+tt.url+"?token=hidden", tt.digest, tt.limits)
			if failure.KindOf(err) != tt.kind {
				t.Fatalf("%s: %v, want kind %q", tt.reason, err, tt.kind)
			}
			if err == nil {
				if got, err := a.Tree.ReadFile("a.yaml"); string(got) != "x" {
					t.Errorf("read %q, %v", got, err)
				}
			} else if text := err.Error(); strings.Contains(text, "secret") || strings.Contains(text, "hidden") {
				t.Errorf("the error shows what it must not: %s", text)
			}
		})
	}
}

func FuzzRead(f *testing.F) {
	var t testing.T
	f.Add(pack(&t, entry("a/b.yaml", "x"), tar.Header{Name: "c", Typeflag: tar.TypeDir}))
	f.Add(pack(&t, entry("../x", "x")))
	f.Add([]byte("x"))
	f.Fuzz(func(t *testing.T, data []byte) {
		a, err := archive.Read(bytes.NewReader(data), archive.Limits{MaxBytes: 1 << 20})
		if err == nil && a.Tree == nil {
			t.Error("neither a tree nor an error")
		}
	})
}

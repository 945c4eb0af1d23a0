package buckettest

import (
	"crypto/md5"
	"encoding/hex"
	"encoding/xml"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob"

	"github.com/bowline-dev/bowline/internal/testkit"
	"github.com/bowline-dev/bowline/internal/testkit/front"
)

// AzureAccount and AzureKey are those of the storage account that tests have; the key is the
// one that Microsoft publishes for its emulator.
const (
	AzureAccount = "devstoreaccount1"
	AzureKey     = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
)

// AzureServer is a container of blobs.
type AzureServer struct {
	*Server
	put    func(key, text string)
	remove func(key string)
}

// Account is the URL of the storage account.
func (s *AzureServer) Account() string { return s.URL() + "/" + AzureAccount }

// Put stores blobs by key.
func (s *AzureServer) Put(objects map[string]string) {
	s.T.Helper()
	for key, text := range objects {
		s.put(key, text)
	}
}

// Delete removes blobs.
func (s *AzureServer) Delete(keys ...string) {
	s.T.Helper()
	for _, key := range keys {
		s.remove(key)
	}
}

// NewAzurite makes a container for this test on Azurite, Microsoft's emulator. Without
// bin/tools/azurite, which takes Node, the test is skipped.
func NewAzurite(t testing.TB, opts ...Option) *AzureServer {
	t.Helper()
	executable := testkit.Tool(t, "azurite")
	p := sharedProcess(t, "azurite", func(p *bucketProcess) (*exec.Cmd, string, error) {
		port, err := front.FreePort()
		p.url, p.way = &url.URL{Scheme: "http", Host: "127.0.0.1:" + strconv.Itoa(port)}, &http.Transport{}
		command := exec.Command(executable, "--silent", "--skipApiVersionCheck", "--disableTelemetry", "--inMemoryPersistence",
			"--blobHost", "127.0.0.1", "--blobPort", strconv.Itoa(port))
		command.Dir = p.dir
		return command, "/", err
	})
	s := &AzureServer{Server: newFront(t, p, opts)}
	key, err := azblob.NewSharedKeyCredential(AzureAccount, AzureKey)
	front.Must(t, err)
	admin, err := azblob.NewClientWithSharedKeyCredential(p.url.String()+"/"+AzureAccount, key, nil)
	front.Must(t, err)
	_, err = admin.CreateContainer(s.context(), s.Bucket, nil)
	front.Must(t, err)
	s.put = func(key, text string) {
		_, err := admin.UploadBuffer(s.context(), s.Bucket, key, []byte(text), nil)
		front.Must(t, err)
	}
	s.remove = func(key string) {
		_, err := admin.DeleteBlob(s.context(), s.Bucket, key, nil)
		front.Must(t, err)
	}
	return s
}

// NewAzure makes a container on a stand-in, which speaks what of Azure's protocol listing and reading
// takes: pages, entity tags, conditions and codes of errors. It lets in whom admit lets in, and
// checks no signature.
func NewAzure(t testing.TB, admit func(*http.Request) bool, opts ...Option) *AzureServer {
	t.Helper()
	blobs := &azureBlobs{admit: admit, blobs: map[string]string{}}
	backend := httptest.NewServer(blobs)
	t.Cleanup(backend.Close)
	u, err := url.Parse(backend.URL)
	front.Must(t, err)
	s := &AzureServer{Server: newFront(t, &bucketProcess{url: u, way: &http.Transport{}}, opts), put: blobs.put, remove: blobs.remove}
	blobs.container = s.Bucket
	return s
}

// azureBlobs is the stand-in.
type azureBlobs struct {
	admit     func(*http.Request) bool
	container string

	mu    sync.Mutex // guards blobs
	blobs map[string]string
}

func (a *azureBlobs) put(key, text string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.blobs[key] = text
}

func (a *azureBlobs) remove(key string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.blobs, key)
}

func azureTag(text string) string {
	sum := md5.Sum([]byte(text))
	return "0x8" + strings.ToUpper(hex.EncodeToString(sum[:7]))
}

// ServeHTTP implements http.Handler.
func (a *azureBlobs) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	a.mu.Lock()
	defer a.mu.Unlock()
	container, key, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"+AzureAccount+"/"), "/")
	switch {
	case !a.admit(r):
		azureError(w, http.StatusForbidden, "AuthenticationFailed")
	case container != a.container:
		azureError(w, http.StatusNotFound, "ContainerNotFound")
	case r.URL.Query().Get("comp") == "list":
		a.list(w, r.URL.Query())
	default:
		a.get(w, r, key)
	}
}

func azureError(w http.ResponseWriter, status int, code string) {
	w.Header().Set("X-Ms-Error-Code", code)
	w.Header().Set("Content-Type", "application/xml")
	w.WriteHeader(status)
	fmt.Fprintf(w, "<?xml version=\"1.0\" encoding=\"utf-8\"?><Error><Code>%s</Code><Message>no</Message></Error>", code)
}

func (a *azureBlobs) get(w http.ResponseWriter, r *http.Request, key string) {
	text, ok := a.blobs[key]
	tag := `"` + azureTag(text) + `"`
	switch {
	case !ok:
		azureError(w, http.StatusNotFound, "BlobNotFound")
	case r.Header.Get("If-Match") != "" && r.Header.Get("If-Match") != tag:
		azureError(w, http.StatusPreconditionFailed, "ConditionNotMet")
	default:
		w.Header().Set("Etag", tag)
		w.Header().Set("X-Ms-Blob-Type", "BlockBlob")
		_, _ = w.Write([]byte(text))
	}
}

// azurePage is how many blobs a page lists: few, so that there are several.
const azurePage = 3

func (a *azureBlobs) list(w http.ResponseWriter, query url.Values) {
	type blob struct {
		Name       string
		Properties struct {
			Etag          string
			ContentLength int `xml:"Content-Length"`
			BlobType      string
		}
	}
	page := struct {
		XMLName    xml.Name `xml:"EnumerationResults"`
		Blobs      struct{ Blob []blob }
		NextMarker string
	}{}
	var keys []string
	for key := range a.blobs {
		if strings.HasPrefix(key, query.Get("prefix")) && key >= query.Get("marker") {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	if len(keys) > azurePage {
		page.NextMarker, keys = keys[azurePage], keys[:azurePage]
	}
	for _, key := range keys {
		b := blob{Name: key}
		b.Properties.Etag, b.Properties.ContentLength, b.Properties.BlobType = azureTag(a.blobs[key]), len(a.blobs[key]), "BlockBlob"
		page.Blobs.Blob = append(page.Blobs.Blob, b)
	}
	w.Header().Set("Content-Type", "application/xml")
	_ = xml.NewEncoder(w).Encode(page)
}

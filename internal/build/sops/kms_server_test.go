package sops

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"cloud.google.com/go/kms/apiv1/kmspb"
	"google.golang.org/api/option"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// keyServer speaks what the library needs of the protocols of Vault's transit engine,
// AWS KMS, Azure Key Vault and GCP KMS, and really encrypts, with a key for each name.
// It takes all connections of its client, whatever host they are meant for.
type keyServer struct {
	*httptest.Server
	client *http.Client
	gcp    []option.ClientOption
	// refuse makes it deny every request to decrypt, and hang leave them without an
	// answer until the test ends.
	refuse, hang atomic.Bool
	// other makes it a server that is no key service at all.
	other    atomic.Bool
	released chan struct{}
	decrypts atomic.Int64

	mu   sync.Mutex
	seen []string // guarded by mu; what identifies each request to decrypt
}

// What the server accepts.
const (
	vaultToken  = "hvs.secret-vault-token"
	awsID       = "AKIATESTKEY"
	awsSecret   = "secret-aws-access-key"
	azureSecret = "secret-azure-client"
	bearer      = "secret-access-token"
	// elsewhere is what a server says that is no key service.
	elsewhere = "only-for-those-who-can-reach-it"
)

func newKeyServer(t *testing.T) *keyServer {
	t.Helper()
	k := &keyServer{released: make(chan struct{})}
	k.Server = httptest.NewTLSServer(k)
	pool := x509.NewCertPool()
	pool.AddCert(k.Certificate())
	trust := &tls.Config{RootCAs: pool, ServerName: "example.com", MinVersion: tls.VersionTLS12}
	k.client = &http.Client{Transport: &http.Transport{TLSClientConfig: trust,
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, network, k.Listener.Addr().String())
		}}}
	k.serveGCP(t, trust)
	t.Cleanup(func() {
		close(k.released)
		k.client.CloseIdleConnections()
		k.Close()
	})
	return k
}

func (k *keyServer) note(format string, args ...any) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.seen = append(k.seen, fmt.Sprintf(format, args...))
}

func (k *keyServer) requests() []string {
	k.mu.Lock()
	defer k.mu.Unlock()
	return append([]string(nil), k.seen...)
}

// mayDecrypt says whether a request to decrypt is served, after the time it takes.
func (k *keyServer) mayDecrypt() bool {
	k.decrypts.Add(1)
	if k.hang.Load() {
		<-k.released
	}
	return !k.refuse.Load()
}

func sealWith(name string, plain []byte) []byte {
	gcm := gcmOf(name)
	nonce := make([]byte, gcm.NonceSize())
	_, _ = rand.Read(nonce) // never fails
	return gcm.Seal(nonce, nonce, plain, nil)
}

func unsealWith(name string, text []byte) ([]byte, error) {
	gcm := gcmOf(name)
	if len(text) < gcm.NonceSize() {
		return nil, io.ErrUnexpectedEOF
	}
	return gcm.Open(nil, text[:gcm.NonceSize()], text[gcm.NonceSize():], nil)
}

func gcmOf(name string) cipher.AEAD {
	key := make([]byte, 32)
	copy(key, name)
	block, err := aes.NewCipher(key)
	if err != nil {
		panic(err)
	}
	gcm, err := cipher.NewGCM(block)
	if err != nil {
		panic(err)
	}
	return gcm
}

// ServeHTTP implements http.Handler.
func (k *keyServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch host := r.Host; {
	case k.other.Load():
		http.Error(w, elsewhere, http.StatusForbidden)
	case strings.HasPrefix(host, "vault."):
		k.vault(w, r)
	case strings.HasPrefix(host, "kms."):
		k.aws(w, r)
	case strings.HasSuffix(host, ".vault.azure.net"):
		k.azure(w, r)
	case strings.HasPrefix(host, "login."):
		k.login(w, r)
	case host == "oauth2.example.com":
		reply(w, http.StatusOK, map[string]any{"access_token": bearer, "expires_in": 3600, "token_type": "Bearer"})
	default:
		http.Error(w, "no such host: "+host, http.StatusNotFound)
	}
}

func reply(w http.ResponseWriter, code int, body map[string]any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(body)
}

func bodyOf(r *http.Request) map[string]any {
	var body map[string]any
	_ = json.NewDecoder(r.Body).Decode(&body)
	return body
}

func text(v any) string { s, _ := v.(string); return s }

func (k *keyServer) vault(w http.ResponseWriter, r *http.Request) {
	body := bodyOf(r)
	if r.Header.Get("X-Vault-Token") != vaultToken {
		reply(w, http.StatusForbidden, map[string]any{"errors": []string{"permission denied: token " + r.Header.Get("X-Vault-Token")}})
		return
	}
	parts := strings.Split(r.URL.Path, "/") // /v1/<engine>/<verb>/<key>
	verb, name := parts[len(parts)-2], parts[len(parts)-1]
	if verb == "encrypt" {
		plain, _ := base64.StdEncoding.DecodeString(text(body["plaintext"]))
		reply(w, http.StatusOK, map[string]any{"data": map[string]any{"ciphertext": "vault:v1:" + base64.StdEncoding.EncodeToString(sealWith(name, plain))}})
		return
	}
	k.note("vault %s", r.URL.Path)
	if !k.mayDecrypt() {
		reply(w, http.StatusForbidden, map[string]any{"errors": []string{"permission denied"}})
		return
	}
	sealed, _ := base64.StdEncoding.DecodeString(strings.TrimPrefix(text(body["ciphertext"]), "vault:v1:"))
	plain, err := unsealWith(name, sealed)
	if err != nil {
		reply(w, http.StatusBadRequest, map[string]any{"errors": []string{err.Error()}})
		return
	}
	reply(w, http.StatusOK, map[string]any{"data": map[string]any{"plaintext": base64.StdEncoding.EncodeToString(plain)}})
}

func (k *keyServer) aws(w http.ResponseWriter, r *http.Request) {
	body := bodyOf(r)
	if !strings.Contains(r.Header.Get("Authorization"), "Credential="+awsID+"/") {
		reply(w, http.StatusBadRequest, map[string]any{"__type": "UnrecognizedClientException", "message": "The security token included in the request is invalid."})
		return
	}
	key := text(body["KeyId"])
	if r.Header.Get("X-Amz-Target") == "TrentService.Encrypt" {
		plain, _ := base64.StdEncoding.DecodeString(text(body["Plaintext"]))
		reply(w, http.StatusOK, map[string]any{"KeyId": key, "CiphertextBlob": base64.StdEncoding.EncodeToString(sealWith(key, plain))})
		return
	}
	k.note("aws %s %s %v", r.Host, key, body["EncryptionContext"])
	if !k.mayDecrypt() {
		reply(w, http.StatusBadRequest, map[string]any{"__type": "AccessDeniedException", "message": "User is not authorized to perform: kms:Decrypt"})
		return
	}
	sealed, _ := base64.StdEncoding.DecodeString(text(body["CiphertextBlob"]))
	plain, err := unsealWith(key, sealed)
	if err != nil {
		reply(w, http.StatusBadRequest, map[string]any{"__type": "InvalidCiphertextException"})
		return
	}
	reply(w, http.StatusOK, map[string]any{"KeyId": key, "Plaintext": base64.StdEncoding.EncodeToString(plain)})
}

func (k *keyServer) azure(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("Authorization") != "Bearer "+bearer {
		w.Header().Set("WWW-Authenticate", `Bearer authorization="https://login.microsoftonline.com/tenant", resource="https://vault.azure.net"`)
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	body := bodyOf(r)
	parts := strings.Split(r.URL.Path, "/") // /keys/<name>/<version>/<verb>
	name, verb := parts[2], parts[len(parts)-1]
	value, _ := base64.RawURLEncoding.DecodeString(text(body["value"]))
	if verb == "encrypt" {
		reply(w, http.StatusOK, map[string]any{"kid": r.URL.Path, "value": base64.RawURLEncoding.EncodeToString(sealWith(name, value))})
		return
	}
	k.note("azure %s%s %s", r.Host, r.URL.Path, text(body["alg"]))
	if !k.mayDecrypt() {
		reply(w, http.StatusForbidden, map[string]any{"error": map[string]any{"code": "Forbidden", "message": "Caller is not authorized"}})
		return
	}
	plain, err := unsealWith(name, value)
	if err != nil {
		reply(w, http.StatusBadRequest, map[string]any{"error": map[string]any{"code": "BadParameter"}})
		return
	}
	reply(w, http.StatusOK, map[string]any{"kid": r.URL.Path, "value": base64.RawURLEncoding.EncodeToString(plain)})
}

// login is the part of Microsoft's login that a client secret needs.
func (k *keyServer) login(w http.ResponseWriter, r *http.Request) {
	const base = "https://login.microsoftonline.com/tenant"
	switch {
	case strings.Contains(r.URL.Path, "discovery/instance"):
		reply(w, http.StatusOK, map[string]any{"tenant_discovery_endpoint": base + "/v2.0/.well-known/openid-configuration", "metadata": []any{
			map[string]any{"preferred_network": "login.microsoftonline.com", "preferred_cache": "login.microsoftonline.com", "aliases": []string{"login.microsoftonline.com"}},
		}})
	case strings.HasSuffix(r.URL.Path, "openid-configuration"):
		reply(w, http.StatusOK, map[string]any{"authorization_endpoint": base + "/oauth2/v2.0/authorize", "token_endpoint": base + "/oauth2/v2.0/token", "issuer": base + "/v2.0"})
	default:
		if r.FormValue("client_secret") != azureSecret {
			reply(w, http.StatusUnauthorized, map[string]any{"error": "invalid_client", "error_description": "AADSTS7000215: Invalid client secret provided."})
			return
		}
		reply(w, http.StatusOK, map[string]any{"access_token": bearer, "expires_in": 3600, "token_type": "Bearer"})
	}
}

// gcpServer is Google's key service.
type gcpServer struct {
	kmspb.UnimplementedKeyManagementServiceServer
	*keyServer
}

func (k *keyServer) serveGCP(t *testing.T, trust *tls.Config) {
	t.Helper()
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer(grpc.Creds(credentials.NewTLS(&tls.Config{Certificates: k.TLS.Certificates, MinVersion: tls.VersionTLS12})))
	kmspb.RegisterKeyManagementServiceServer(server, gcpServer{keyServer: k})
	go func() { _ = server.Serve(listener) }()
	t.Cleanup(server.Stop)
	k.gcp = []option.ClientOption{
		option.WithEndpoint(listener.Addr().String()),
		option.WithGRPCDialOption(grpc.WithTransportCredentials(credentials.NewTLS(trust))),
	}
}

func authorized(ctx context.Context) error {
	md, _ := metadata.FromIncomingContext(ctx)
	if got := md.Get("authorization"); len(got) != 1 || got[0] != "Bearer "+bearer {
		return status.Error(codes.Unauthenticated, "no valid token")
	}
	return nil
}

// Encrypt implements kmspb.KeyManagementServiceServer.
func (g gcpServer) Encrypt(ctx context.Context, req *kmspb.EncryptRequest) (*kmspb.EncryptResponse, error) {
	return &kmspb.EncryptResponse{Ciphertext: sealWith(req.GetName(), req.GetPlaintext())}, authorized(ctx)
}

// Decrypt implements kmspb.KeyManagementServiceServer.
func (g gcpServer) Decrypt(ctx context.Context, req *kmspb.DecryptRequest) (*kmspb.DecryptResponse, error) {
	if err := authorized(ctx); err != nil {
		return nil, err
	}
	g.note("gcp %s", req.GetName())
	if !g.mayDecrypt() {
		return nil, status.Error(codes.PermissionDenied, "Permission 'cloudkms.cryptoKeyVersions.useToDecrypt' denied")
	}
	plain, err := unsealWith(req.GetName(), req.GetCiphertext())
	return &kmspb.DecryptResponse{Plaintext: plain}, err
}

// googleKey is the file of a Google service account.
func googleKey(t *testing.T) string {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	file, err := json.Marshal(map[string]string{
		"type": "service_account", "client_email": "x@y.iam.gserviceaccount.com", "token_uri": "https://oauth2.example.com/token",
		"private_key": string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})),
	})
	if err != nil {
		t.Fatal(err)
	}
	return string(file)
}

package sops

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/security/keyvault/azkeys"
	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/getsops/sops/v3/azkv"
	"github.com/getsops/sops/v3/gcpkms"
	"github.com/getsops/sops/v3/hcvault"
	"github.com/getsops/sops/v3/keys"
	"github.com/getsops/sops/v3/kms"
	"golang.org/x/oauth2"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/bowline-dev/bowline/internal/failure"
	"github.com/bowline-dev/bowline/internal/testkit/sealtest"
)

const (
	awsKeyName = "arn:aws:kms:eu-west-1:123456789012:key/612d5f0a-a1b3-45e6-aca6-a5b005693a48"
	gcpKeyName = "projects/p/locations/global/keyRings/r/cryptoKeys/k"
)

// service is a key service with a key on the key server and credentials for it.
type service struct {
	name       string
	entries    map[string]string
	recipient  func(*keyServer) keys.MasterKey
	request    string // what the server saw
	recipients string // how messages name it
}

func services(t *testing.T) []service {
	t.Helper()
	return []service{
		{"vault", map[string]string{"sops.vault-token": vaultToken + "\n"}, func(k *keyServer) keys.MasterKey {
			key := hcvault.NewMasterKey("https://vault.example.com", "transit", "app")
			hcvault.Token(vaultToken).ApplyToMasterKey(key)
			copied := *k.client
			hcvault.NewHTTPClient(&copied).ApplyToMasterKey(key)
			return key
		}, "vault /v1/transit/decrypt/app", "Vault https://vault.example.com (transit/keys/app)"},
		{"aws", map[string]string{"sops.aws-kms": "aws_access_key_id: " + awsID + "\naws_secret_access_key: " + awsSecret + "\n"},
			func(k *keyServer) keys.MasterKey {
				key := kms.NewMasterKey(awsKeyName, "", map[string]*string{"team": aws.String("blue")})
				kms.NewCredentialsProvider(credentials.NewStaticCredentialsProvider(awsID, awsSecret, "")).ApplyToMasterKey(key)
				kms.NewHTTPClient(k.client).ApplyToMasterKey(key)
				return key
			}, "aws kms.eu-west-1.amazonaws.com " + awsKeyName + " map[team:blue]", "AWS KMS " + awsKeyName},
		{"azure", map[string]string{"sops.azure-kv": "tenantId: tenant\nclientId: client\nclientSecret: " + azureSecret + "\n"},
			func(k *keyServer) keys.MasterKey {
				key := azkv.NewMasterKey("https://team.vault.azure.net", "app", "v1")
				azkv.NewTokenCredential(staticToken{}).ApplyToMasterKey(key)
				azkv.NewClientOptions(&azkeys.ClientOptions{ClientOptions: azcore.ClientOptions{Transport: k.client}}).ApplyToMasterKey(key)
				return key
			}, "azure team.vault.azure.net/keys/app/v1/decrypt RSA-OAEP-256", "Azure Key Vault https://team.vault.azure.net/keys/app"},
		{"gcp", map[string]string{"sops.gcp-kms": googleKey(t)}, func(k *keyServer) keys.MasterKey {
			key := gcpkms.NewMasterKeyFromResourceID(gcpKeyName)
			gcpkms.NewTokenSource(oauth2.StaticTokenSource(&oauth2.Token{AccessToken: bearer})).ApplyToMasterKey(key)
			gcpkms.ClientOptions(k.gcp).ApplyToMasterKey(key)
			return key
		}, "gcp " + gcpKeyName, "GCP KMS " + gcpKeyName},
	}
}

type staticToken struct{}

func (staticToken) GetToken(context.Context, policy.TokenRequestOptions) (azcore.AccessToken, error) {
	return azcore.AccessToken{Token: bearer, ExpiresOn: time.Now().Add(time.Hour)}, nil
}

func (k *keyServer) ring(t *testing.T, o Options) *Ring {
	t.Helper()
	o.HTTPClient, o.GCP = k.client, k.gcp
	if o.Patience == 0 {
		o.Patience = time.Minute
	}
	return NewRing(t.Context(), o)
}

func (s service) seal(t *testing.T, k *keyServer) []byte {
	t.Helper()
	return sealtest.Seal(t, secretManifest, sealtest.Sealing{Only: sealtest.ManifestFields, Groups: [][]keys.MasterKey{{s.recipient(k)}}})
}

func TestKeyServices(t *testing.T) {
	for _, s := range services(t) {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			server := newKeyServer(t)
			sealed := s.seal(t, server)
			ring := server.ring(t, Options{})
			for range 3 {
				u := parse(t, sealed)
				if _, err := decrypterWith(t, ring, s.entries).Object(t.Context(), u); err != nil {
					t.Fatal(err)
				}
				if got, _, _ := unstructured.NestedString(u.Object, "stringData", "password"); got != "hunter2-correct-horse" {
					t.Fatalf("password %q", got)
				}
			}
			if got := server.requests(); !slices.Equal(got, []string{s.request}) {
				t.Errorf("requests %q, want one: %q", got, s.request)
			}
		})
	}
}

func TestKeyServiceRefuses(t *testing.T) {
	for _, s := range services(t) {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			server := newKeyServer(t)
			sealed := s.seal(t, server)
			server.refuse.Store(true)
			_, err := decrypterWith(t, server.ring(t, Options{}), s.entries).Object(t.Context(), parse(t, sealed))
			if !errors.Is(err, failure.Of(failure.Denied)) || !strings.Contains(err.Error(), s.recipients) || !strings.Contains(err.Error(), "Secret/flux-system/keys") {
				t.Errorf("the failure is %v", err)
			}
			oneLine(t, err)
			t.Log(err)
			_, err = decrypterWith(t, server.ring(t, Options{}), map[string]string{"x": "y"}).Object(t.Context(), parse(t, sealed))
			if !errors.Is(err, failure.Of(failure.Invalid)) || !strings.Contains(err.Error(), "it is encrypted for "+s.recipients) {
				t.Errorf("without credentials: %v", err)
			}
		})
	}
}

// TestKeyServiceQuotes has a service quote the token that it got: no message does.
func TestKeyServiceQuotes(t *testing.T) {
	server := newKeyServer(t)
	s := services(t)[0]
	_, err := decrypterWith(t, server.ring(t, Options{}), map[string]string{"sops.vault-token": "hvs.another-token"}).Object(t.Context(), parse(t, s.seal(t, server)))
	if err == nil || strings.Contains(err.Error(), "hvs.another-token") || !strings.Contains(err.Error(), "permission denied: token ***") {
		t.Errorf("the failure is %v", err)
	}
}

// TestKeyServiceElsewhere has files name a server that is none, of which messages tell
// nothing but the status: whoever writes files could read it otherwise.
func TestKeyServiceElsewhere(t *testing.T) {
	for _, s := range services(t) {
		t.Run(s.name, func(t *testing.T) {
			t.Parallel()
			server := newKeyServer(t)
			sealed := s.seal(t, server)
			server.other.Store(true)
			server.refuse.Store(true)
			_, err := decrypterWith(t, server.ring(t, Options{}), s.entries).Object(t.Context(), parse(t, sealed))
			if !errors.Is(err, failure.Of(failure.Denied)) || strings.Contains(err.Error(), elsewhere) || !strings.Contains(err.Error(), "403") {
				t.Errorf("the failure is %v", err)
			}
			oneLine(t, err)
		})
	}
}

// TestKeyServiceHangs shows that a build waits for a service for a moment only, that
// the next does not wait at all, and that both are woken.
func TestKeyServiceHangs(t *testing.T) {
	server := newKeyServer(t)
	s := services(t)[0]
	first, second := s.seal(t, server), s.seal(t, server)
	server.hang.Store(true)
	ring := server.ring(t, Options{Patience: 50 * time.Millisecond, Timeout: 2 * time.Second})
	woken := make(chan string, 2)
	ask := func(name string, manifest []byte) error {
		d := decrypterWith(t, ring, s.entries)
		d.wake = func() { woken <- name }
		_, err := d.Object(t.Context(), parse(t, manifest))
		return err
	}
	if err := ask("first", first); !Pending(err) || !errors.Is(err, failure.Of(failure.Unavailable)) {
		t.Fatalf("the failure is %v", err)
	}
	ring.answers.options.Patience = time.Hour // one that waited would see the request given up
	if err := ask("second", second); !Pending(err) {
		t.Fatalf("the second build waited for a service that is known to hang: %v", err)
	}
	names := []string{<-woken, <-woken}
	slices.Sort(names)
	if fmt.Sprint(names) != "[first second]" {
		t.Errorf("woken: %v", names)
	}
	if err := ask("first", first); Pending(err) || !errors.Is(err, failure.Of(failure.Timeout)) || !strings.Contains(err.Error(), "does not answer") {
		t.Errorf("after it was woken: %v", err)
	}
	if server.decrypts.Load() != 2 {
		t.Errorf("%d requests, want one for each file", server.decrypts.Load())
	}
}

// TestKeyServiceLate shows that an answer is not lost because nobody waited for it.
func TestKeyServiceLate(t *testing.T) {
	server := newKeyServer(t)
	s := services(t)[0]
	sealed := s.seal(t, server)
	ring := server.ring(t, Options{Patience: time.Nanosecond})
	woken := make(chan struct{}, 1)
	d := decrypterWith(t, ring, s.entries)
	d.wake = func() { woken <- struct{}{} }
	if _, err := d.Object(t.Context(), parse(t, sealed)); err == nil {
		return // it was faster than a nanosecond
	} else if !Pending(err) {
		t.Fatal(err)
	}
	<-woken
	if _, err := d.Object(t.Context(), parse(t, sealed)); err != nil || server.decrypts.Load() != 1 {
		t.Errorf("after %d requests: %v", server.decrypts.Load(), err)
	}
}

// TestKeyServiceCancelled ends a build that waits.
func TestKeyServiceCancelled(t *testing.T) {
	server := newKeyServer(t)
	s := services(t)[0]
	sealed := s.seal(t, server)
	server.hang.Store(true)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	_, err := decrypterWith(t, server.ring(t, Options{Timeout: time.Second}), s.entries).Object(ctx, parse(t, sealed))
	if !errors.Is(err, failure.Of(failure.Timeout)) {
		t.Errorf("the failure is %v", err)
	}
}

// TestOtherKeys shows that an answer is for the keys that it was given to.
func TestOtherKeys(t *testing.T) {
	server := newKeyServer(t)
	s := services(t)[0]
	sealed := s.seal(t, server)
	ring := server.ring(t, Options{})
	if _, err := decrypterWith(t, ring, s.entries).Object(t.Context(), parse(t, sealed)); err != nil {
		t.Fatal(err)
	}
	other, err := ring.Open("Secret/tenant/keys", "other", nil, Cloud{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ring.Decrypter(other, nil).Object(t.Context(), parse(t, sealed)); err == nil {
		t.Error("whoever has no key got what somebody else was given")
	}
}

// TestAnswersBounded keeps memory in bounds.
func TestAnswersBounded(t *testing.T) {
	a := newAnswers(t.Context(), Options{})
	for i := range maxDataKeys + 10 {
		a.keep(fmt.Sprint(i), []byte("key"))
	}
	if len(a.keys) != maxDataKeys || a.recent.Len() != maxDataKeys || a.known("0") != nil || a.known(fmt.Sprint(maxDataKeys)) == nil {
		t.Errorf("%d keys are kept", len(a.keys))
	}
}

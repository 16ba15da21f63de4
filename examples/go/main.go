// Makes a key, verifies it, rotates a root key and lets a key expire, against a running ostiary.
//
// OSTIARY_ADDRESS is HOST:PORT or unix:PATH, OSTIARY_ROOT_KEY a root key that may do all of this.
package main

import (
	"context"
	"fmt"
	"log"
	"os"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	pb "ostiary.dev/examples/go/gen/ostiary/v1"
)

// rootKey goes with every call that is made as it.
type rootKey string

func (k rootKey) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return map[string]string{"authorization": "Bearer " + string(k)}, nil
}

// RequireTransportSecurity would be true for a server on another machine.
func (k rootKey) RequireTransportSecurity() bool { return false }

// as makes a call with this root key.
func as(secret string) grpc.CallOption { return grpc.PerRPCCredentials(rootKey(secret)) }

func main() {
	if err := run(); err != nil {
		log.Fatal(err)
	}
}

func run() (err error) {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()

	// For unix:PATH the authority is `localhost` by itself in Go; nothing has to be set.
	conn, err := grpc.NewClient(os.Getenv("OSTIARY_ADDRESS"), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer conn.Close()
	apis, keys, rootKeys := pb.NewApiServiceClient(conn), pb.NewKeyServiceClient(conn), pb.NewRootKeyServiceClient(conn)
	admin := as(os.Getenv("OSTIARY_ROOT_KEY"))

	// An API, and a key of it for a customer.
	api, err := apis.CreateApi(ctx, &pb.CreateApiRequest{Name: "example in Go"}, admin)
	if err != nil {
		return err
	}
	apiID := api.GetApi().GetApiId()
	defer func() {
		if _, deleting := apis.DeleteApi(ctx, &pb.DeleteApiRequest{ApiId: apiID}, admin); err == nil {
			err = deleting
		}
	}()
	key, err := keys.CreateKey(ctx, &pb.CreateKeyRequest{ApiId: apiID, Name: "customer 42"}, admin)
	if err != nil {
		return err
	}

	// A root key that may verify keys of this API and nothing else, as a server of yours would hold it.
	server, err := rootKeys.CreateRootKey(ctx, &pb.CreateRootKeyRequest{
		Name:        "server of the example in Go",
		Permissions: []string{"apis." + apiID + ".verify_key"},
	}, admin)
	if err != nil {
		return err
	}
	rootKeyIDs := []string{server.GetRootKey().GetRootKeyId()}
	defer func() {
		request := &pb.BatchDeleteRootKeysRequest{RootKeyIds: rootKeyIDs}
		if _, deleting := rootKeys.BatchDeleteRootKeys(ctx, request, admin); err == nil {
			err = deleting
		}
	}()
	expect := func(want pb.VerificationCode, secret string, caller grpc.CallOption) error {
		answer, err := keys.VerifyKey(ctx, &pb.VerifyKeyRequest{Key: secret, ApiId: &apiID}, caller)
		if err != nil {
			return err
		}
		if got := answer.GetVerdict().GetCode(); got != want {
			return fmt.Errorf("the verdict is %v, not %v", got, want)
		}
		fmt.Println("the key verifies as", want)
		return nil
	}
	if err := expect(pb.VerificationCode_VERIFICATION_CODE_VALID, key.GetSecret(), as(server.GetSecret())); err != nil {
		return err
	}

	// Its successor. The old root key works on for one second.
	rotated, err := rootKeys.RotateRootKey(ctx, &pb.RotateRootKeyRequest{
		RootKeyId:   rootKeyIDs[0],
		GracePeriod: durationpb.New(time.Second),
	}, admin)
	if err != nil {
		return err
	}
	rootKeyIDs = append(rootKeyIDs, rotated.GetRootKey().GetRootKeyId())
	successor := as(rotated.GetSecret())

	// A key that lives one second, the shortest life there is.
	brief, err := keys.CreateKey(ctx, &pb.CreateKeyRequest{
		ApiId:      apiID,
		Expiration: &pb.CreateKeyRequest_Ttl{Ttl: durationpb.New(time.Second)},
	}, admin)
	if err != nil {
		return err
	}

	time.Sleep(1500 * time.Millisecond)

	_, err = keys.VerifyKey(ctx, &pb.VerifyKeyRequest{Key: key.GetSecret()}, as(server.GetSecret()))
	if status.Code(err) != codes.Unauthenticated {
		return fmt.Errorf("the root key was rotated out, and its call came to %v", status.Code(err))
	}
	fmt.Println("the old root key is refused:", status.Convert(err).Message())
	if err := expect(pb.VerificationCode_VERIFICATION_CODE_VALID, key.GetSecret(), successor); err != nil {
		return err
	}
	return expect(pb.VerificationCode_VERIFICATION_CODE_EXPIRED, brief.GetSecret(), successor)
}

import com.google.protobuf.Duration;
import dev.ostiary.v1.ApiServiceGrpc;
import dev.ostiary.v1.BatchDeleteRootKeysRequest;
import dev.ostiary.v1.CreateApiRequest;
import dev.ostiary.v1.CreateKeyRequest;
import dev.ostiary.v1.CreateRootKeyRequest;
import dev.ostiary.v1.DeleteApiRequest;
import dev.ostiary.v1.KeyServiceGrpc;
import dev.ostiary.v1.RootKeyServiceGrpc;
import dev.ostiary.v1.RotateRootKeyRequest;
import dev.ostiary.v1.VerificationCode;
import dev.ostiary.v1.VerifyKeyRequest;
import io.grpc.CallCredentials;
import io.grpc.Grpc;
import io.grpc.InsecureChannelCredentials;
import io.grpc.ManagedChannel;
import io.grpc.Metadata;
import io.grpc.Status;
import io.grpc.StatusRuntimeException;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.Executor;
import java.util.concurrent.TimeUnit;

/**
 * Makes a key, verifies it, rotates a root key and lets a key expire, against a running ostiary.
 *
 * <p>{@code OSTIARY_ADDRESS} is {@code HOST:PORT} or {@code unix:PATH}, {@code OSTIARY_ROOT_KEY} a root key that may do
 * all of this.
 */
public final class Example {
  private static final Duration SECOND = Duration.newBuilder().setSeconds(1).build();

  private final ApiServiceGrpc.ApiServiceBlockingStub apis;
  private final KeyServiceGrpc.KeyServiceBlockingStub keys;
  private final RootKeyServiceGrpc.RootKeyServiceBlockingStub rootKeys;

  private Example(ManagedChannel channel, RootKey admin) {
    apis = ApiServiceGrpc.newBlockingStub(channel).withCallCredentials(admin);
    keys = KeyServiceGrpc.newBlockingStub(channel).withCallCredentials(admin);
    rootKeys = RootKeyServiceGrpc.newBlockingStub(channel).withCallCredentials(admin);
  }

  public static void main(String[] arguments) throws InterruptedException {
    var address = System.getenv("OSTIARY_ADDRESS");
    var builder = Grpc.newChannelBuilder(address, InsecureChannelCredentials.create());
    if (address.startsWith("unix:")) {
      // Without it Java sends the path of the socket in its place, which no server takes for a host.
      builder.overrideAuthority("localhost");
    }
    var channel = builder.build();
    try {
      new Example(channel, new RootKey(System.getenv("OSTIARY_ROOT_KEY"))).run();
    } finally {
      channel.shutdown().awaitTermination(5, TimeUnit.SECONDS);
    }
  }

  private void run() throws InterruptedException {
    // An API, and a key of it for a customer.
    var apiId = apis.createApi(CreateApiRequest.newBuilder().setName("example in Java").build()).getApi().getApiId();
    var made = new ArrayList<String>();
    try {
      var key = keys.createKey(CreateKeyRequest.newBuilder().setApiId(apiId).setName("customer 42").build());

      // A root key that may verify keys of this API and nothing else, as a server of yours would hold it.
      var server = rootKeys.createRootKey(CreateRootKeyRequest.newBuilder()
          .setName("server of the example in Java")
          .addPermissions("apis." + apiId + ".verify_key")
          .build());
      var serverId = server.getRootKey().getRootKeyId();
      made.add(serverId);
      expect(VerificationCode.VERIFICATION_CODE_VALID, key.getSecret(), apiId, server.getSecret());

      // Its successor. The old root key works on for one second.
      var rotated = rootKeys.rotateRootKey(
          RotateRootKeyRequest.newBuilder().setRootKeyId(serverId).setGracePeriod(SECOND).build());
      made.add(rotated.getRootKey().getRootKeyId());

      // A key that lives one second, the shortest life there is.
      var brief = keys.createKey(CreateKeyRequest.newBuilder().setApiId(apiId).setTtl(SECOND).build());

      Thread.sleep(1500);

      expectRefused(key.getSecret(), apiId, server.getSecret());
      expect(VerificationCode.VERIFICATION_CODE_VALID, key.getSecret(), apiId, rotated.getSecret());
      expect(VerificationCode.VERIFICATION_CODE_EXPIRED, brief.getSecret(), apiId, rotated.getSecret());
    } finally {
      tidyUp(apiId, made);
    }
  }

  private VerificationCode verify(String key, String apiId, String rootKey) {
    var request = VerifyKeyRequest.newBuilder().setKey(key).setApiId(apiId).build();
    return keys.withCallCredentials(new RootKey(rootKey)).verifyKey(request).getVerdict().getCode();
  }

  private void expect(VerificationCode wanted, String key, String apiId, String rootKey) {
    var code = verify(key, apiId, rootKey);
    if (code != wanted) {
      throw new IllegalStateException("the verdict is " + code + ", not " + wanted);
    }
    System.out.println("the key verifies as " + code);
  }

  private void expectRefused(String key, String apiId, String rootKey) {
    try {
      verify(key, apiId, rootKey);
    } catch (StatusRuntimeException refused) {
      if (refused.getStatus().getCode() != Status.Code.UNAUTHENTICATED) {
        throw refused;
      }
      System.out.println("the old root key is refused: " + refused.getStatus().getDescription());
      return;
    }
    throw new IllegalStateException("the root key was rotated out and still works");
  }

  private void tidyUp(String apiId, List<String> rootKeyIds) {
    if (!rootKeyIds.isEmpty()) {
      rootKeys.batchDeleteRootKeys(BatchDeleteRootKeysRequest.newBuilder().addAllRootKeyIds(rootKeyIds).build());
    }
    apis.deleteApi(DeleteApiRequest.newBuilder().setApiId(apiId).build());
  }

  /** Goes with every call that is made as it. */
  private static final class RootKey extends CallCredentials {
    private static final Metadata.Key<String> AUTHORIZATION =
        Metadata.Key.of("authorization", Metadata.ASCII_STRING_MARSHALLER);

    private final String secret;

    RootKey(String secret) {
      this.secret = secret;
    }

    @Override
    public void applyRequestMetadata(RequestInfo request, Executor executor, MetadataApplier applier) {
      var headers = new Metadata();
      headers.put(AUTHORIZATION, "Bearer " + secret);
      applier.apply(headers);
    }
  }
}

import org.apache.http.HttpHost;
import org.elasticsearch.ElasticsearchStatusException;
import org.elasticsearch.action.admin.cluster.health.ClusterHealthRequest;
import org.elasticsearch.action.bulk.BulkRequest;
import org.elasticsearch.action.bulk.BulkResponse;
import org.elasticsearch.action.index.IndexRequest;
import org.elasticsearch.action.update.UpdateRequest;
import org.elasticsearch.client.RequestOptions;
import org.elasticsearch.client.RestClient;
import org.elasticsearch.client.RestHighLevelClient;
import org.elasticsearch.client.RestHighLevelClientBuilder;

/** Sends COUNT views of an item with Java's high-level REST client 7.17, half of them in its compatibility mode. */
public class HighLevelClient {
  public static void main(String[] arguments) throws Exception {
    String item = arguments[1];
    int count = Integer.parseInt(arguments[2]) / 2;
    RequestOptions options = RequestOptions.DEFAULT;
    for (boolean compatible : new boolean[] {false, true}) {
      try (RestHighLevelClient client =
          new RestHighLevelClientBuilder(RestClient.builder(HttpHost.create(arguments[0])).setPathPrefix("/es").build())
              .setApiCompatibilityMode(compatible)
              .build()) {
        check(client.ping(options), "ping");
        client.info(options);
        client.cluster().health(new ClusterHealthRequest(), options);
        BulkRequest bulk = new BulkRequest();
        for (int number = 3; number < count; number++) {
          bulk.add(new IndexRequest("logs").source("id", item, "event", "view"));
        }
        bulk.add(new UpdateRequest("logs", item + System.nanoTime()).doc("id", item, "event", "view").docAsUpsert(true));
        bulk.add(new IndexRequest("logs").source("@timestamp", "invalid"));
        BulkResponse response = client.bulk(bulk, options);
        for (var result : response) {
          check(result.isFailed() == (result.getItemId() == count - 2), response.buildFailureMessage());
        }
        client.index(new IndexRequest("logs").source("id", item, "event", "view"), options);
        client.index(new IndexRequest("logs").id(item + System.nanoTime()).create(true).source("id", item, "event", "view"), options);
        try {
          client.index(new IndexRequest("logs").source("@timestamp", "invalid"), options);
          check(false, "an invalid document was accepted");
        } catch (ElasticsearchStatusException error) {
          check(error.status().getStatus() == 400 && error.getIndex() != null, error.toString());
        }
      }
    }
  }

  private static void check(boolean condition, String message) {
    if (!condition) {
      throw new IllegalStateException(message);
    }
  }
}

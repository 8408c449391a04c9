import co.elastic.clients.elasticsearch.ElasticsearchClient;
import co.elastic.clients.elasticsearch.core.BulkResponse;
import co.elastic.clients.json.SimpleJsonpMapper;
import co.elastic.clients.transport.rest_client.RestClientTransport;
import jakarta.json.Json;
import jakarta.json.JsonObject;
import org.apache.http.HttpHost;
import org.elasticsearch.client.RestClient;

/** Sends COUNT views of an item with elasticsearch-java 8, after requests whose replies it has to decode. */
public class JavaClient {
  public static void main(String[] arguments) throws Exception {
    int count = Integer.parseInt(arguments[2]);
    JsonObject view = Json.createObjectBuilder().add("id", arguments[1]).add("event", "view").build();
    RestClient http = RestClient.builder(HttpHost.create(arguments[0])).setPathPrefix("/es").build();
    try (RestClientTransport transport = new RestClientTransport(http, new SimpleJsonpMapper())) {
      ElasticsearchClient client = new ElasticsearchClient(transport);
      client.info();
      client.cluster().health();
      client.cluster().getSettings();
      client.nodes().info();
      client.nodes().stats();
      client.xpack().info();
      client.license().get();
      client.cat().health();
      client.ilm().getStatus();
      client.ilm().getLifecycle(request -> request.name("x"));
      client.indices().getDataStream();
      client.indices().getDataStream(request -> request.name("x"));
      client.indices().getDataLifecycle(request -> request.name("x"));
      client.indices().getIndexTemplate(request -> request.name("x"));
      client.indices().getTemplate(request -> request.name("x"));
      client.indices().getAlias(request -> request.name("x"));
      client.indices().get(request -> request.index("x"));
      client.indices().getMapping(request -> request.index("x"));
      client.indices().getSettings(request -> request.index("x"));
      client.cluster().getComponentTemplate(request -> request.name("x"));
      client.ingest().getPipeline(request -> request.id("x"));
      BulkResponse response =
          client.bulk(
              request -> {
                request.index("logs");
                for (int number = 3; number < count; number++) {
                  request.operations(operation -> operation.create(action -> action.document(view)));
                }
                return request.operations(
                    operation ->
                        operation.update(
                            action ->
                                action.id(arguments[1] + System.nanoTime()).action(body -> body.doc(view).docAsUpsert(true))));
              });
      if (response.errors()) {
        throw new IllegalStateException(response.toString());
      }
      client.index(request -> request.index("logs").document(view));
      client.create(request -> request.index("logs").id(arguments[1] + System.nanoTime()).document(view));
    }
  }
}

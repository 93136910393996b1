select cluster_size, count(*) // cluster_size as cluster_count, count(*) filter (flagged) // cluster_size as flagged_count
from identity.clusters group by cluster_size

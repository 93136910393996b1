select floor(match_weight)::integer as match_weight, count(*) as pair_count, count(*) filter (accepted) as link_count
from identity.edges where type = 'probabilistic' group by 1

-- How sure are the links that scores made?
select match_weight, pair_count, link_count from metrics_match_weights
where day = (select max(day) from metrics_dates) and link_count > 0 order by match_weight

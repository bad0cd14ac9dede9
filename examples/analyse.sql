-- Analyses the Parquet files of a run: the best items, the best score by cost, and the movement of the queries.
-- Also works while the run is in progress, after its first iteration:
--
--     cd RUN && duckdb < analyse.sql

-- All results, one row for each query and item. The folder names give the column `iteration`. Its type is given, as
-- DuckDB would infer text from the leading zeros.
create or replace temp view results as
from read_parquet('results/*/*.parquet', hive_types = {'iteration': uinteger});

create or replace temp view queries as
from read_parquet('queries/*/*.parquet', hive_types = {'iteration': uinteger});

-- Each item once, in the first iteration that found it.
create or replace temp view items as
select distinct on (db_idx) * exclude (query_idx, distance)
from results
order by db_idx, iteration;

-- The ten best items.
select *
from items
order by score desc nulls last, db_idx
limit 10;

-- The best score so far by cost: the items that scored better than all earlier ones.
select evaluation, score as best_so_far, db_idx, iteration
from items
qualify score > coalesce(max(score) over (order by evaluation rows between unbounded preceding and 1 preceding), '-infinity')
order by evaluation;

-- The iterations: rows, items found for the first time, evaluations so far, scores.
select
    results.iteration,
    count(*) as rows,
    count(distinct results.db_idx) filter (items.iteration = results.iteration) as new_items,
    max(max(results.evaluation)) over (order by results.iteration) as evaluations,
    avg(results.score) as mean_score,
    max(results.score) as best_score
from results
join items using (db_idx)
group by results.iteration
order by results.iteration;

-- Items without a score, by outcome and reason. Reasons that differ only in numbers are counted together.
select outcome, min(reason) as reason, count(*) as items
from items
where score is null
group by outcome, regexp_replace(reason, '[0-9][0-9.]*', '#', 'g')
order by items desc, reason;

-- How far the queries moved: in each step, and from their start. (This includes the last update,
-- so it is one iteration longer than the results.)
select
    now.iteration,
    avg(list_distance(now.embedding, before.embedding)) as mean_step,
    max(list_distance(now.embedding, before.embedding)) as longest_step,
    avg(list_distance(now.embedding, start.embedding)) as mean_from_start
from queries as now
join queries as before on before.iteration + 1 = now.iteration and before.query_idx = now.parent_idx
join queries as start on start.iteration = 0 and start.query_idx = now.collection_idx
group by now.iteration
order by now.iteration;

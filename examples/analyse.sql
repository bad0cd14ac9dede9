-- What a run found, how fast, and where its queries went, straight from its Parquet files.
-- Works while the run goes on, from its first iteration on. In the run folder:
--
--     cd RUN && duckdb < analyse.sql

-- Everything met, a row for each query and item. The folder names give `iteration`: padded with
-- zeros, it would be text to DuckDB, so its type is said.
create or replace temp view results as
from read_parquet('results/*/*.parquet', hive_types = {'iteration': uinteger});

create or replace temp view queries as
from read_parquet('queries/*/*.parquet', hive_types = {'iteration': uinteger});

-- Each item once, as it was first met.
create or replace temp view items as
select distinct on (db_idx) * exclude (query_idx, distance)
from results
order by db_idx, iteration;

-- The ten best items.
select *
from items
order by score desc nulls last, db_idx
limit 10;

-- The best so far against its cost: the items that were better than all before them.
select evaluation, score as best_so_far, db_idx, iteration
from items
qualify score > coalesce(max(score) over (order by evaluation rows between unbounded preceding and 1 preceding), '-infinity')
order by evaluation;

-- Iteration by iteration: rows, items met for the first time, items asked so far, scores.
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

-- Items that have no score, by what became of them and why: an example of the reasons that differ in numbers only.
select outcome, min(reason) as reason, count(*) as items
from items
where score is null
group by outcome, regexp_replace(reason, '[0-9][0-9.]*', '#', 'g')
order by items desc, reason;

-- How far the queries moved: in the last step, and from where they started. (The last update is
-- there too, so this is one iteration longer than the results.)
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

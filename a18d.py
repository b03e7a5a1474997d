import gzip,json,collections,polars as pl
it={r['item_id']:r['categories'] for r in pl.read_parquet('/tmp/nu/o/a18/items.parquet').rows(named=True)}
c=collections.Counter();k=collections.Counter()
for fn in('Gift_Cards','Magazine_Subscriptions'):
  for l in gzip.open(f'/work/shared/data/formats/amazon2018/meta_{fn}.json.gz'):
    r=json.loads(l); 
    if r['asin'] in it:
      for x in set(r['category'])-set(it[r['asin']]): c[x[:70]]+=1
      for x in it[r['asin']]: k[x]+=1
print(c.most_common(12)); print(k.most_common(60))

document.querySelectorAll("table.sortable").forEach(function(table){
  var heads=table.tHead.rows[0].cells,body=table.tBodies[0];
  Array.prototype.forEach.call(heads,function(head,column){
    var button=document.createElement("button");
    button.type="button";button.textContent=head.textContent;
    head.textContent="";head.appendChild(button);
    button.addEventListener("click",function(){
      var down=head.getAttribute("aria-sort")==="ascending",rows=Array.prototype.slice.call(body.rows);
      Array.prototype.forEach.call(heads,function(other){other.removeAttribute("aria-sort");});
      head.setAttribute("aria-sort",down?"descending":"ascending");
      rows.sort(function(a,b){
        var x=a.cells[column],y=b.cells[column],p=x.dataset.value,q=y.dataset.value,order;
        if(p!==undefined||q!==undefined){
          if(p===undefined)return 1;
          if(q===undefined)return -1;
          order=p-q;
        }else order=x.textContent<y.textContent?-1:x.textContent>y.textContent?1:0;
        return down?-order:order;
      });
      rows.forEach(function(row){body.appendChild(row);});
    });
  });
});
